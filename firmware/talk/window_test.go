package talk_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/firmware/rollout"
	"muster/firmware/talk"
)

// TestADeviceIsToldWhenItMayInstall: outside of its window to wait with the image, when it opens that it may, and
// nothing of an offer that it has not taken up.
func TestADeviceIsToldWhenItMayInstall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		opens, closes := time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		tell := func(e rollout.Event) *talk.Offer {
			t.Helper()
			r.line.sent, r.line.last = nil, nil
			r.run(t, func() {
				r.Told("r", []rollout.Change{{Device: "d1", Action: 257, Event: e, From: rollout.Downloaded, To: rollout.Downloaded}})
			})
			if len(r.line.sent) == 0 {
				return nil
			}
			var o talk.Offer
			if err := json.Unmarshal(r.line.last, &o); err != nil {
				t.Fatal(err)
			}
			return &o
		}
		if o := tell(rollout.Unpark); o == nil || o.Window != nil {
			t.Errorf("without windows it is told %+v", o)
		}
		r.desk.state, r.desk.parked, r.desk.hours = rollout.Downloaded, true, rollout.Hours{Bound: true, Opens: opens}
		if o := tell(rollout.Park); o == nil || o.Window == nil || *o.Window != (talk.OfferWindow{Opens: opens.Unix()}) {
			t.Errorf("outside of its window it is told %+v", o)
		}
		if got, err := talk.OfferAttributes(r.line.last); got != nil || err != nil {
			t.Errorf("ThingsBoard's devices are told %s, %v", got, err)
		}
		if got, err := r.Attributes(t.Context(), "d1"); got != nil || err != nil {
			t.Errorf("and are answered %v, %v", got, err)
		}
		r.desk.parked, r.desk.hours = false, rollout.Hours{Bound: true, Open: true, Closes: closes}
		o := tell(rollout.Unpark)
		if o == nil || o.Window == nil || *o.Window != (talk.OfferWindow{Open: true, Closes: closes.Unix()}) {
			t.Errorf("when it opens it is told %+v", o)
		}
		if got, err := talk.OfferAttributes(r.line.last); !strings.Contains(string(got), `"fw_version":"2.0.0"`) || err != nil {
			t.Errorf("ThingsBoard's devices are told %s, %v", got, err)
		}
		if got, err := r.Attributes(t.Context(), "d1"); len(got) == 0 || err != nil {
			t.Errorf("and are answered %v, %v", got, err)
		}
		r.desk.state, r.desk.parked, r.desk.hours = rollout.Downloading, true, rollout.Hours{Bound: true, Opens: opens}
		if o := tell(rollout.Park); o == nil || o.Window == nil || o.Window.Open {
			t.Errorf("who fetches is told %+v", o)
		}
		if got, err := talk.OfferAttributes(r.line.last); len(got) == 0 || err != nil {
			t.Errorf("ThingsBoard's devices go on by %s, %v", got, err)
		}
		r.desk.state, r.desk.shut = rollout.Offered, true
		if o := tell(rollout.Unpark); o != nil {
			t.Errorf("of an offer that nobody took up it is told %+v", o)
		}
		to := &mouth{}
		r.Get(t.Context(), "d1", []byte(`{"action":257,"off":0,"len":4096}`), to)
		if len(to.errors) != 1 || !strings.Contains(to.errors[0], `"code":"no_action"`) || len(r.pieces.asked) != 0 {
			t.Errorf("who asks for a piece of it is answered %v, and %v is asked for", to.errors, r.pieces.asked)
		}
	})
}
