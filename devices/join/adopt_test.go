package join_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
	"muster/devices"
	"muster/devices/join"
	"muster/feed"
)

func (r *rig) adoptionKey() (id, text string) {
	r.Helper()
	k, text, err := r.CreateAdoptionKey(r.Context(), "bench", time.Time{})
	must(r, err)
	return k.ID, text
}

func hello(clientID, username, password string) join.Hello {
	return join.Hello{ClientID: clientID, Username: username, Password: []byte(password), Peer: "10.0.0.9:1", Listener: "tcp"}
}

// quarantined lets a client in and checks that it is a candidate.
func (r *rig) quarantined(h join.Hello) join.Guest {
	r.Helper()
	g, device, _, known, err := r.Greet(h)
	must(r, err)
	if !g.Quarantine || device != "" || !known || r.RefreshGuest(g.Credential) != nil {
		r.Fatalf("%+v is let in as %+v %q", h.ClientID, g, device)
	}
	return g
}

func TestAnUnknownClientWithAnAdoptionKeyIsQuarantinedShownAndAdopted(t *testing.T) {
	r := newRig(t)
	must(t, r.registry.PutProfile(t.Context(), devices.Profile{Name: "meter"}))
	_, key := r.adoptionKey()
	for i, h := range []join.Hello{hello("plug-1", "esp", key), hello("plug-2", key, "anything"), hello("", "plug 3", key)} {
		t.Run(h.ClientID+h.Username[:3], func(t *testing.T) {
			g := r.quarantined(h)
			if again := r.quarantined(h); again != g {
				t.Errorf("the same client is %+v and %+v", g, again)
			}
			r.Sample(g.Credential, "tele/plug/SENSOR", []byte(`{"t":21}`))
			list := r.Inbox()
			id := []string{"plug-1", "plug-2", "plug-3"}[i]
			if len(list) != 1 || list[0].ID != id || list[0].Messages != 1 || list[0].Samples != nil {
				t.Fatalf("the inbox has %+v", list)
			}
			if text := fmt.Sprintf("%+v", list[0]); strings.Contains(text, key) {
				t.Errorf("it shows the key: %s", text)
			}
			c, err := r.Candidate(id)
			must(t, err)
			want := join.Sample{At: muster.MicrosOf(r.now()), Topic: "tele/plug/SENSOR", Payload: []byte(`{"t":21}`), Size: 8}
			if d := cmp.Diff([]join.Sample{want}, c.Samples); d != "" {
				t.Error(d)
			}
			tags, err := devices.TagsOf(map[string]string{"hall": "3"})
			must(t, err)
			d, is, err := r.Adopt(t.Context(), id, join.Adoption{ID: muster.DeviceID("dev-" + id), Name: "Plug", Profile: "meter", Tags: tags})
			must(t, err)
			if d.ID != muster.DeviceID("dev-"+id) || d.Profile != "meter" || d.Name != "Plug" || d.Tags != tags {
				t.Errorf("the device is %+v", d)
			}
			if !r.cutGuest(g.Credential) || r.RefreshGuest(g.Credential) == nil || len(r.Inbox()) != 0 {
				t.Error("the candidate stays in quarantine")
			}
			for range 2 {
				_, device, credential, _, err := r.Greet(h)
				if err != nil || device != d.ID || credential == "" {
					t.Errorf("it comes back as %q %q, %v", device, credential, err)
				}
				r.restart()
			}
			if by, _, err := r.registry.Authenticate(is.Token, nil); err != nil || by != d.ID {
				t.Errorf("its token gives %q, %v", by, err)
			}
		})
	}
}

func TestNoOneElseComesInAsAnAdoptedDevice(t *testing.T) {
	r := newRig(t)
	_, key := r.adoptionKey()
	_, other := r.adoptionKey()
	r.quarantined(hello("plug", "esp", key))
	_, _, err := r.Adopt(t.Context(), "plug", join.Adoption{})
	must(t, err)
	events, err := r.store.FeedAfter(t.Context(), 0, 10)
	must(t, err)
	if len(events) != 2 || events[0].Type != feed.DeviceCreated || events[1].Type != feed.DeviceAdopted || events[1].Device != "plug" {
		t.Errorf("the feed is told %v", events)
	}
	for _, h := range []join.Hello{
		hello("plug", "esp2", key), hello("plug", "esp", other), hello("plug", key, ""), hello("plug", "esp", "mak_nobody"), hello("x", "plug", key),
	} {
		g, device, _, _, err := r.Greet(h)
		if err == nil || device != "" || g.Quarantine {
			t.Errorf("%+v is let in as %+v %q", h.ClientID, g, device)
			continue
		}
		if h.Username != "esp" || strings.HasPrefix(string(h.Password), "mak_nob") {
			continue
		}
		if d := wantDenied(t, err, "in the name of a device that exists"); !cmp.Equal(d.Devices, []muster.DeviceID{"plug"}) {
			t.Errorf("it is about %v", d.Devices)
		}
	}
	if n := len(r.Inbox()); n != 0 {
		t.Errorf("%d candidates", n)
	}
}

func TestWhoIsNotLetIntoTheInbox(t *testing.T) {
	r := newRig(t)
	r.device("existing")
	expiring, text, err := r.CreateAdoptionKey(t.Context(), "short", r.now().Add(time.Minute))
	must(t, err)
	id, key := r.adoptionKey()
	must(t, r.DeleteAdoptionKey(t.Context(), id))
	_, good := r.adoptionKey()
	r.pass(time.Minute)
	for _, tt := range []struct {
		name   string
		h      join.Hello
		reason string
	}{
		{"who presents a deleted key", hello("c", "u", key), "the adoption key is unknown"},
		{"who presents an expired key", hello("c", "u", text), "the adoption key short has expired"},
		{"who presents a made-up key", hello("c", "mak_x", ""), "the adoption key is unknown"},
		{"who says to be a device that exists", hello("existing", "u", good), "in the name of a device that exists"},
		{"who has the user name of a device that exists", hello("c", "existing", good), "in the name of a device that exists"},
		{"who has no name", hello("", good, ""), "needs a client id or a user name"},
		{"who has a user name of 1 KiB", hello("c", strings.Repeat("u", 1024), good), "over"},
		{"who wants to register where nobody may", hello("c", "provision", ""), "with no profile"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, _, known, err := r.Greet(tt.h)
			if wantDenied(t, err, tt.reason); !known {
				t.Error("it is nobody's")
			}
		})
	}
	if _, _, _, known, err := r.Greet(hello("c", "u", "p")); known || err == nil {
		t.Errorf("a stranger: known %v, %v", known, err)
	}
	wantKind(t, r.DeleteAdoptionKey(t.Context(), expiring.ID+"x"), muster.NotFound)
	_, _, err = r.CreateAdoptionKey(t.Context(), "past", r.now())
	wantKind(t, err, muster.Invalid)
	_, _, err = r.CreateAdoptionKey(t.Context(), "", time.Time{})
	wantKind(t, err, muster.Invalid)
}

func TestARefusedCandidateIsCutAndKeptOutUntilItIsUnblocked(t *testing.T) {
	r := newRig(t)
	_, key := r.adoptionKey()
	h := hello("plug", "esp", key)
	g := r.quarantined(h)
	must(t, r.Refuse(t.Context(), "plug"))
	if !r.cutGuest(g.Credential) || r.RefreshGuest(g.Credential) == nil {
		t.Error("it stays connected")
	}
	wantKind(t, r.Refuse(t.Context(), "plug"), muster.NotFound)
	_, _, err := r.Adopt(t.Context(), "plug", join.Adoption{})
	wantKind(t, err, muster.NotFound)
	r.restart()
	_, _, _, _, err = r.Greet(h)
	wantDenied(t, err, "was refused in the adoption inbox")
	_, another := r.adoptionKey()
	_, _, _, _, err = r.Greet(hello("plug", "esp", another))
	wantDenied(t, err, "was refused in the adoption inbox")
	blocks := r.Blocks()
	if len(blocks) != 1 || blocks[0].Label != "plug" {
		t.Fatalf("blocked are %+v", blocks)
	}
	must(t, r.Unblock(t.Context(), blocks[0].Hash))
	wantKind(t, r.Unblock(t.Context(), blocks[0].Hash), muster.NotFound)
	r.quarantined(h)
}

func TestADeletedAdoptionKeyCutsItsGuestsAndKeepsTheAdopted(t *testing.T) {
	r := newRig(t)
	id, key := r.adoptionKey()
	_, other := r.adoptionKey()
	r.quarantined(hello("adopted", "", key))
	_, _, err := r.Adopt(t.Context(), "adopted", join.Adoption{})
	must(t, err)
	g, stays := r.quarantined(hello("plug", "", key)), r.quarantined(hello("stays", "", other))
	r.guests = nil
	r.Sample(g.Credential, "x", []byte("1"))
	must(t, r.DeleteAdoptionKey(t.Context(), id))
	if in := r.Inbox(); len(in) != 1 || in[0].ID != "stays" {
		t.Errorf("in the inbox are %+v", in)
	}
	if _, _, err := r.Adopt(t.Context(), "plug", join.Adoption{}); muster.KindOf(err) != muster.NotFound {
		t.Errorf("who left the inbox is adopted: %v", err)
	}
	r.Sample(g.Credential, "x", []byte("2")) // its connection may last a moment longer
	if r.RefreshGuest(g.Credential) == nil || r.RefreshGuest(stays.Credential) != nil {
		t.Error("it is not the deleted key's guest that may stay no more")
	}
	if !r.cutGuest(g.Credential) {
		t.Error("its guest is not cut")
	}
	if _, device, _, _, err := r.Greet(hello("adopted", "", key)); err != nil || device != "adopted" {
		t.Errorf("the adopted device is %q, %v", device, err)
	}
	wantKind(t, r.RefreshGuest("inbox_nobody"), muster.Unauthorized)
	wantKind(t, r.RefreshGuest("provision"), muster.Unauthorized)
}

func TestGuestsOfAnAdoptionKeyAreCutWhenItExpires(t *testing.T) {
	r := newRig(t)
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		r.at = begun
		var cut []time.Duration
		j := join.New(r.registry, r.store, time.Now, nil, join.Options{OnGuests: func(affects func(string) bool) {
			if affects("inbox_plug") && !affects("inbox_stays") {
				cut = append(cut, time.Since(begun))
			}
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- j.Run(ctx) }()
		synctest.Wait()
		_, short, err := j.CreateAdoptionKey(t.Context(), "short", begun.Add(90*time.Second))
		must(t, err)
		_, long, err := j.CreateAdoptionKey(t.Context(), "long", begun.Add(9*time.Minute))
		must(t, err)
		for id, key := range map[string]string{"plug": short, "stays": long} {
			_, _, _, _, err := j.Greet(hello(id, "", key))
			must(t, err)
		}
		<-time.After(5 * time.Minute)
		cancel()
		must(t, <-done)
		if d := cmp.Diff([]time.Duration{90 * time.Second}, cut); d != "" {
			t.Error(d)
		}
	})
}

func TestCandidatesHaveIDsThatAreFreeAndTheirOwn(t *testing.T) {
	r := newRig(t)
	_, key := r.adoptionKey()
	r.device("plug-7")
	seen := map[string]bool{}
	for _, name := range []string{"plug/7", "plug 7", "me", "..", "é", strings.Repeat("x", 200), strings.Repeat("x", 201), "Plug"} {
		g := r.quarantined(hello(name, "", key))
		id := strings.TrimPrefix(g.Credential, "inbox_")
		_, err := muster.ParseDeviceID(id)
		if _, taken := r.registry.Get(muster.DeviceID(id)); err != nil || taken == nil || seen[id] {
			t.Errorf("%q is %q: %v, seen %v", name, id, err, seen[id])
		}
		seen[id] = true
	}
	if !seen["Plug"] {
		t.Errorf("an id that needs no change is changed: %v", seen)
	}
	r.device("Plug")
	_, _, err := r.Adopt(t.Context(), "Plug", join.Adoption{})
	wantKind(t, err, muster.Conflict)
	if _, err := r.Candidate("Plug"); err != nil {
		t.Errorf("an adoption that is refused takes the candidate away: %v", err)
	}
	_, _, err = r.Adopt(t.Context(), "Plug", join.Adoption{ID: "a/b"})
	wantKind(t, err, muster.Invalid)
}

func TestTheInboxIsBoundedAndKeepsThoseWhoSpeak(t *testing.T) {
	r := newRig(t)
	_, key := r.adoptionKey()
	speaks := r.quarantined(hello("speaks", "", key))
	r.Sample(speaks.Credential, "t", []byte("x"))
	for i := range join.MaxCandidates {
		r.pass(time.Second)
		r.quarantined(hello(fmt.Sprint("silent-", i), "", key))
	}
	if n := len(r.Inbox()); n != join.MaxCandidates {
		t.Errorf("%d candidates", n)
	}
	for id, there := range map[string]bool{"speaks": true, "silent-0": false, "silent-1": true, fmt.Sprint("silent-", join.MaxCandidates-1): true} {
		if _, err := r.Candidate(id); (err == nil) != there {
			t.Errorf("%s is there: %v", id, err == nil)
		}
	}
	if newest := r.Inbox()[0].ID; newest != fmt.Sprint("silent-", join.MaxCandidates-1) {
		t.Errorf("the first is %s", newest)
	}
}

func TestOfACandidatesMessagesTheLast20AreKeptAndNoMoreThan4KiBOfEach(t *testing.T) {
	r := newRig(t)
	_, key := r.adoptionKey()
	g := r.quarantined(hello("plug", "", key))
	payload := bytes.Repeat([]byte("y"), 5000)
	for i := range 30 {
		r.Sample(g.Credential, fmt.Sprint("t/", i), payload)
	}
	payload[0] = 'z' // the caller's buffer is not kept
	c, err := r.Candidate("plug")
	must(t, err)
	if len(c.Samples) != join.MaxSamples || c.Messages != 30 || c.Samples[0].Topic != "t/10" || c.Samples[19].Topic != "t/29" {
		t.Errorf("%d samples of %d", len(c.Samples), c.Messages)
	}
	for _, s := range c.Samples {
		if len(s.Payload) != join.MaxSample || s.Size != 5000 || s.Payload[0] != 'y' {
			t.Errorf("a sample of %d, size %d", len(s.Payload), s.Size)
		}
	}
	r.Sample("inbox_nobody", "t", nil)
	r.Sample("provision", "t", nil)
	// All together have a bound: those that are full give of their own.
	for i := range 900 {
		g := r.quarantined(hello(fmt.Sprint("c", i), "", key))
		for range 10 {
			r.Sample(g.Credential, "t", payload)
		}
	}
	total := 0
	for _, c := range r.Inbox() {
		full, err := r.Candidate(c.ID)
		must(t, err)
		for _, s := range full.Samples {
			total += len(s.Payload) + len(s.Topic)
		}
		if diff := cmp.Diff(c, full, cmpopts.IgnoreFields(join.Candidate{}, "Samples"), cmpopts.IgnoreUnexported(join.Candidate{})); diff != "" {
			t.Error(diff)
		}
	}
	if total > 32<<20 || total < 31<<20 {
		t.Errorf("samples have %d bytes", total)
	}
}

func TestAnyoneMayAskToBeRegisteredWhenAProfileSaysSo(t *testing.T) {
	r := provisioned(t, join.Create)
	g, device, _, known, err := r.Greet(hello("c", "provision", ""))
	if err != nil || !known || device != "" || g.Quarantine || r.RefreshGuest(g.Credential) != nil {
		t.Errorf("let in as %+v %q, %v", g, device, err)
	}
	must(t, r.DeleteProvisioning(t.Context(), "meter"))
	if !r.cutGuest(g.Credential) || r.RefreshGuest(g.Credential) == nil {
		t.Error("it may stay when nobody can register any more")
	}
}
