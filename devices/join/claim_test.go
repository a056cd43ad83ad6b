package join_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/devices"
	"muster/devices/join"
)

func claimer(n int) join.Claimer {
	return join.Claimer{ID: fmt.Sprint("ses_", n), Name: fmt.Sprint("Person ", n), Peer: fmt.Sprintf("10.0.%d.1:1", n)}
}

func TestAClaimCodeBindsADeviceOnce(t *testing.T) {
	r := newRig(t)
	r.device("d")
	_, _, err := r.NewClaimCode(t.Context(), "nobody", time.Hour)
	wantKind(t, err, muster.NotFound)
	first, _, err := r.NewClaimCode(t.Context(), "d", time.Hour)
	must(t, err)
	code, expires, err := r.NewClaimCode(t.Context(), "d", time.Hour)
	must(t, err)
	if !regexp.MustCompile(`^[A-HJ-NP-Z2-9]{8}$`).MatchString(code) || !expires.Equal(r.now().Add(time.Hour)) {
		t.Errorf("the code is %q until %v", code, expires)
	}
	r.restart()
	_, err = r.Claim(t.Context(), claimer(1), "", first)
	wantKind(t, err, muster.NotFound) // another took its place
	typed := " " + strings.ToLower(code[:4]) + "-" + code[4:]
	d, err := r.Claim(t.Context(), claimer(1), "", typed)
	must(t, err)
	if owner, _ := d.Tags.Get(join.OwnerTag); d.ID != "d" || owner != "Person 1" {
		t.Errorf("claimed %+v", d)
	}
	for range 2 {
		_, err = r.Claim(t.Context(), claimer(2), "", code)
		wantKind(t, err, muster.NotFound)
		r.restart()
	}
	if d, err := r.registry.Get("d"); err != nil || d.Tags.Map()[join.OwnerTag] != "Person 1" {
		t.Errorf("the device is %+v, %v", d, err)
	}
}

func TestAClaimCodeExpiresAndGoesWithItsDevice(t *testing.T) {
	r := newRig(t)
	for _, id := range []muster.DeviceID{"a", "b"} {
		r.device(id)
	}
	code, _, err := r.NewClaimCode(t.Context(), "a", time.Hour)
	must(t, err)
	other, _, err := r.NewClaimCode(t.Context(), "b", 2*time.Hour)
	must(t, err)
	must(t, r.registry.Delete(t.Context(), "b", devices.KeepData))
	r.device("b")
	_, err = r.Claim(t.Context(), claimer(1), "", other)
	wantKind(t, err, muster.NotFound)
	r.pass(time.Hour)
	_, err = r.Claim(t.Context(), claimer(1), "", code)
	wantKind(t, err, muster.NotFound)
	for _, within := range []time.Duration{0, -time.Hour, 400 * 24 * time.Hour} {
		_, _, err := r.NewClaimCode(t.Context(), "a", within)
		wantKind(t, err, muster.Invalid)
	}
}

func TestADeviceIsClaimedByTheSecretItOfferedWithItsName(t *testing.T) {
	r := newRig(t)
	r.device("d")
	r.device("e")
	const secret = "ABCDEFGH"
	must(t, r.Offer(t.Context(), "d", secret, time.Minute))
	for _, wrong := range []string{"", "abc", strings.Repeat("x", 257)} {
		wantKind(t, r.Offer(t.Context(), "d", wrong, time.Minute), muster.Invalid)
	}
	for _, device := range []muster.DeviceID{"", "e"} {
		_, err := r.Claim(t.Context(), claimer(1), device, secret)
		wantKind(t, err, muster.NotFound)
	}
	if _, err := r.Claim(t.Context(), claimer(1), "d", secret); err != nil {
		t.Error(err)
	}
	_, err := r.Claim(t.Context(), claimer(1), "d", secret)
	wantKind(t, err, muster.NotFound)
	code, _, err := r.NewClaimCode(t.Context(), "e", time.Minute)
	must(t, err)
	if _, err := r.Claim(t.Context(), claimer(2), "e", code); err != nil {
		t.Errorf("a code with the device beside it: %v", err)
	}
}

func TestDevicesMayOfferTheSameSecret(t *testing.T) {
	r := newRig(t)
	for _, id := range []muster.DeviceID{"a", "b"} {
		r.device(id)
		must(t, r.Offer(t.Context(), id, "value", time.Minute)) // as ThingsBoard's documentation has it
	}
	for _, id := range []muster.DeviceID{"a", "b"} {
		if d, err := r.Claim(t.Context(), claimer(1), id, "value"); err != nil || d.ID != id {
			t.Errorf("%s: %v, %v", id, d.ID, err)
		}
	}
}

func TestGuessingClaimCodesIsLimitedByPrincipalAddressAndInAll(t *testing.T) {
	r := newRig(t)
	r.device("d")
	code, _, err := r.NewClaimCode(t.Context(), "d", 24*time.Hour)
	must(t, err)
	guess := func(who join.Claimer, code string) muster.Kind {
		_, err := r.Claim(t.Context(), who, "", code)
		if err == nil {
			return muster.Internal
		}
		return muster.KindOf(err)
	}
	for i := range 6 {
		who := claimer(1)
		who.Peer = fmt.Sprintf("10.9.%d.1:1", i)
		want := muster.NotFound
		if i == 5 {
			want = muster.Busy
		}
		if k := guess(who, "WRONGWRO"); k != want {
			t.Errorf("guess %d of one person: %v, want %v", i, k, want)
		}
	}
	for i := range 6 {
		who := claimer(100 + i)
		who.Peer = fmt.Sprintf("10.8.0.1:%d", i)
		want := muster.NotFound
		if i == 5 {
			want = muster.Busy
		}
		if k := guess(who, "WRONGWRO"); k != want {
			t.Errorf("guess %d from one address: %v, want %v", i, k, want)
		}
	}
	wrong := 10
	for i := range 40 {
		if guess(claimer(200+i), "WRONGWRO") == muster.NotFound {
			wrong++
		}
	}
	if wrong != 20 {
		t.Errorf("%d wrong guesses in a minute are answered, want 20", wrong)
	}
	if k := guess(claimer(300), code); k != muster.Busy {
		t.Errorf("the right code among too many is answered: %v", k)
	}
	r.pass(time.Minute - time.Microsecond)
	if k := guess(claimer(301), code); k != muster.Busy {
		t.Errorf("within the minute: %v", k)
	}
	r.pass(time.Microsecond)
	if _, err := r.Claim(t.Context(), claimer(302), "", code); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func TestRightClaimsAreNotLimited(t *testing.T) {
	r := newRig(t)
	for i := range 30 {
		id := muster.DeviceID(fmt.Sprint("d", i))
		r.device(id)
		code, _, err := r.NewClaimCode(t.Context(), id, time.Hour)
		must(t, err)
		if _, err := r.Claim(t.Context(), claimer(1), "", code); err != nil {
			t.Fatalf("claim %d: %v", i, err)
		}
	}
}

func TestExpiredClaimCodesAreClearedAway(t *testing.T) {
	r := newRig(t)
	r.device("d")
	_, _, err := r.NewClaimCode(t.Context(), "d", time.Minute)
	must(t, err)
	r.pass(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, r.TidyNow(t.Context()))
	must(t, r.Run(ctx))
	if left, err := r.store.ClaimCodes(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("the store has %v, %v", left, err)
	}
}
