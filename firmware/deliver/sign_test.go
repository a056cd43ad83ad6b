package deliver_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/firmware/deliver"
)

func signer(t testing.TB, current, previous []byte) *deliver.Signer {
	t.Helper()
	s, err := deliver.NewSigner(current, previous)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnAddressGivesTheRightItWasMadeForAndNoOther(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := signer(t, keyOne, nil)
	rapid.Check(t, func(t *rapid.T) {
		digest := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"))
		device := muster.DeviceID(rapid.StringMatching(`[A-Za-z0-9._:-]{1,128}`).
			Filter(func(s string) bool { _, err := muster.ParseDeviceID(s); return err == nil }).Draw(t, "device"))
		want := deliver.Grant{Digest: digest, Device: device, Action: rapid.Int64().Draw(t, "action"), Expires: now.Add(time.Minute)}
		at := s.URL("https://muster.example/", want.Digest, want.Device, want.Action, want.Expires)
		got, err := s.Check(httptest.NewRequest(http.MethodGet, at, nil), now)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Fatalf("%s: %v\n%s", at, err, diff)
		}
		i := rapid.IntRange(len("https://muster.example/fw/blob/"), len(at)-1).Draw(t, "place")
		c := rapid.SampledFrom([]byte("0123456789abcdefABCDEF-_.:=&?%+/")).Draw(t, "letter")
		if other := at[:i] + string(c) + at[i+1:]; other != at {
			r, err := http.NewRequest(http.MethodGet, other, nil)
			if err != nil {
				return
			}
			if g, err := s.Check(r, now); err == nil && !cmp.Equal(g, want) { // %3A is %3a
				t.Fatalf("%s is taken, for %+v", other, g)
			}
		}
	})
}

func TestAnAddressIsRefused(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := signer(t, keyOne, nil)
	digest := [32]byte{1, 0xab}
	url := func(d [32]byte, device muster.DeviceID, action int64, after time.Duration) string {
		return s.URL("https://muster.example", d, device, action, now.Add(after))
	}
	good := url(digest, "d1", 7, time.Minute)
	sig := func(u string) string {
		_, after, _ := strings.Cut(u, "&sig=")
		return "&sig=" + after
	}
	_, query, _ := strings.Cut(good, "?")
	with := func(u, other string) string { return strings.Replace(u, sig(u), sig(other), 1) }
	for name, c := range map[string]struct {
		url  string
		kind muster.Kind
	}{
		"at the second it expires":              {url(digest, "d1", 7, 0), muster.Forbidden},
		"with the signature of another device":  {with(good, url(digest, "d2", 7, time.Minute)), muster.Forbidden},
		"with the signature of another action":  {with(good, url(digest, "d1", 8, time.Minute)), muster.Forbidden},
		"with the signature of another image":   {with(good, url([32]byte{2}, "d1", 7, time.Minute)), muster.Forbidden},
		"with the signature of a later end":     {with(good, url(digest, "d1", 7, time.Hour)), muster.Forbidden},
		"with the signature of another key":     {with(good, signer(t, keyTwo, nil).URL("https://muster.example", digest, "d1", 7, now.Add(time.Minute))), muster.Forbidden},
		"with half a signature":                 {good[:len(good)-20], muster.Forbidden},
		"with an empty signature":               {strings.Replace(good, sig(good), "&sig=", 1), muster.Forbidden},
		"without a signature":                   {strings.Replace(good, sig(good), "", 1), muster.Unauthorized},
		"without any of it":                     {"https://muster.example/fw/blob/" + strings.Repeat("a", 64), muster.Unauthorized},
		"with a device twice":                   {good + "&d=d2", muster.Forbidden},
		"with an action written in another way": {strings.Replace(good, "a=7", "a=%2B7", 1), muster.Forbidden},
		"with no number as its end":             {strings.Replace(good, "exp=", "exp=x", 1), muster.Forbidden},
		"with no device id":                     {strings.Replace(good, "d=d1", "d=..", 1), muster.Forbidden},
		"with a query that is none":             {good + "&%zz", muster.Unauthorized},
		"with the image in capitals":            {strings.Replace(good, "ab000", "AB000", 1), muster.NotFound},
		"with a path that leaves":               {"https://muster.example/fw/blob/..%2F..%2Fsecret.key?" + query, muster.NotFound},
		"with a short name of an image":         {"https://muster.example/fw/blob/ab?" + query, muster.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			if c.url == good {
				t.Fatal("the address was not changed")
			}
			_, err := s.Check(httptest.NewRequest(http.MethodGet, c.url, nil), now)
			if err == nil || muster.KindOf(err) != c.kind {
				t.Errorf("%v, want %s", err, c.kind)
			}
		})
	}
}

func TestAnAddressOfThePreviousKeyIsGoodUntilThatKeyIsGone(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	old := signer(t, keyOne, nil).URL("https://muster.example", [32]byte{1}, "d1", 7, now.Add(time.Minute))
	if _, err := signer(t, keyTwo, keyOne).Check(httptest.NewRequest(http.MethodGet, old, nil), now); err != nil {
		t.Error(err)
	}
	if _, err := signer(t, keyTwo, nil).Check(httptest.NewRequest(http.MethodGet, old, nil), now); err == nil {
		t.Error("the key that is gone is still taken")
	}
	for _, keys := range [][2][]byte{{keyOne[:31], nil}, {nil, nil}, {keyOne, keyTwo[:8]}} {
		if _, err := deliver.NewSigner(keys[0], keys[1]); muster.KindOf(err) != muster.Invalid || err == nil {
			t.Errorf("a key of %d and %d bytes: %v", len(keys[0]), len(keys[1]), err)
		}
	}
}
