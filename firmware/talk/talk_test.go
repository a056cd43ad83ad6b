package talk_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/firmware"
	"muster/firmware/chunk"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/firmware/talk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counter is a desk that offers every device the same, and keeps what it is told. It is
// driven by the tests of the loops here; the real one is in the server's tests.
type counter struct {
	mu      sync.Mutex
	asked   int
	reports []string
	fail    func() error
	refuse  error // of a report
	stop    bool
	waits   bool
	shut    bool
	parked  bool
	hours   rollout.Hours
	state   rollout.State // Offered for Queued
	offered muster.Micros
}

func (c *counter) Offer(_ context.Context, id muster.DeviceID) (desk.Offer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.fail != nil {
		if err := c.fail(); err != nil {
			return desk.Offer{}, err
		}
	}
	m := &firmware.Manifest{
		Schema: firmware.Schema, Product: "pump", Version: "2.0.0", Type: "app", Created: time.Unix(1_800_000_000, 0).UTC(),
		Files: []firmware.File{{Filename: "pump.bin", SHA256: strings.Repeat("ab", 32), Size: 100_000}},
	}
	text, err := m.Bytes()
	return desk.Offer{
		Device: id, Rollout: "r", Action: 257, Attempt: 1, State: max(c.state, rollout.Offered), Shut: c.shut, Parked: c.parked, Hours: c.hours, Stop: c.stop, Waits: c.waits, Offered: c.offered,
		Release: desk.Release{ID: "rel", Manifest: m, Signed: firmware.Signed{Manifest: text}, Files: []desk.File{{Filename: "pump.bin", SHA256: strings.Repeat("ab", 32), Size: 100_000}}},
	}, err
}

func (c *counter) Report(_ context.Context, r director.Report) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	what := r.Fact.Event.String()
	if r.Version != "" {
		what = "runs " + r.Version
	}
	c.reports = append(c.reports, fmt.Sprintf("%s %s %d", r.Device, what, r.Fact.Progress))
	return c.refuse
}

func (c *counter) Runs(_ context.Context, r desk.Runs) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = append(c.reports, fmt.Sprintf("%s runs %s %s %t", r.Device, r.Product, r.Version, r.Beside))
	return nil
}

func (c *counter) Stopped(_ context.Context, id muster.DeviceID, action int32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = append(c.reports, fmt.Sprintf("%s stopped %d", id, action))
	return nil
}

// line keeps what is sent.
type line struct {
	mu   sync.Mutex
	sent []string
	last []byte
}

func (l *line) Send(id muster.DeviceID, rest string, payload []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = append(l.sent, string(id)+" "+rest)
	l.last = payload
	return true
}

// pieces keeps what is asked for.
type pieces struct {
	mu      sync.Mutex
	asked   []chunk.Request
	dropped int
}

func (p *pieces) Ask(_ context.Context, r chunk.Request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, r)
	return nil
}

func (p *pieces) Drop(muster.DeviceID) { p.dropped++ }

// mouth keeps what a device is told about its requests.
type mouth struct{ errors []string }

func (m *mouth) Data(int64, string, []byte) chunk.Given { return chunk.Taken }
func (m *mouth) Error(payload []byte)                   { m.errors = append(m.errors, string(payload)) }

type rig struct {
	*talk.Talk
	desk   *counter
	line   *line
	pieces *pieces
	key    ed25519.PublicKey
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{desk: &counter{}, line: &line{}, pieces: &pieces{}}
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	var err error
	r.Talk, err = talk.New(talk.Config{
		Desk: r.desk, Line: r.line, Pieces: r.pieces, Key: key, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Behind: func(muster.DeviceID) []muster.DeviceID { return []muster.DeviceID{"kid1", "kid2"} },
		Runs: func(_ muster.DeviceID, _ string, beside bool) string { // of the firmware alone
			return map[bool]string{false: "0.9.0"}[beside]
		},
		URL: func(id muster.DeviceID, action int32, sha256 string, until time.Time) string {
			return fmt.Sprintf("http://h/fw/%s/%s/%d", sha256[:4], id, action)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.key = r.Key()
	return r
}

// run runs the loops while f does.
func (r *rig) run(t *testing.T, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- r.Run(ctx) }()
	go func() { ended <- r.RunHeard(ctx) }()
	f()
	synctest.Wait()
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func TestAnOfferCanBeCheckedAndIsForOneDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run(t, func() { r.Ready("d1", false) })
		var o talk.Offer
		if err := json.Unmarshal(r.line.last, &o); err != nil {
			t.Fatal(err)
		}
		m, err := o.Verify(r.key, "d1", time.Now())
		if err != nil || m.Version != "2.0.0" || o.Files[0].URL != "http://h/fw/abab/d1/257" || o.Key != firmware.KeyID(r.key) {
			t.Errorf("%+v, %v", o, err)
		}
		stranger := ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", 32))).Public().(ed25519.PublicKey)
		for name, check := range map[string]func(o talk.Offer) error{
			"for another device": func(o talk.Offer) error { _, err := o.Verify(r.key, "d2", time.Now()); return err },
			"by another key":     func(o talk.Offer) error { _, err := o.Verify(stranger, "d1", time.Now()); return err },
			"with no key":        func(o talk.Offer) error { _, err := o.Verify(nil, "d1", time.Now()); return err },
			"out of date":        func(o talk.Offer) error { _, err := o.Verify(r.key, "d1", time.Now().Add(25*time.Hour)); return err },
			"of another action":  func(o talk.Offer) error { o.Action++; _, err := o.Verify(r.key, "d1", time.Now()); return err },
			"of another attempt": func(o talk.Offer) error { o.Attempt++; _, err := o.Verify(r.key, "d1", time.Now()); return err },
			"of another rollout": func(o talk.Offer) error { o.Rollout = "r2"; _, err := o.Verify(r.key, "d1", time.Now()); return err },
			"that lasts longer":  func(o talk.Offer) error { o.NotAfter++; _, err := o.Verify(r.key, "d1", time.Now()); return err },
			"of another manifest": func(o talk.Offer) error {
				o.Manifest = json.RawMessage(strings.Replace(string(o.Manifest), "2.0.0", "2.0.1", 1))
				_, err := o.Verify(r.key, "d1", time.Now())
				return err
			},
		} {
			if err := check(o); muster.KindOf(err) != muster.Forbidden {
				t.Errorf("an offer %s: %v", name, err)
			}
		}
	})
}

func TestWhoIsToBeToldIsToldOnceAndAGatewaysDevicesEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for range 5 {
			r.Ready("d1", false)
		}
		r.Ready("gw", true)
		r.Told("r", []rollout.Change{
			{Device: "d2", Event: rollout.Offer, To: rollout.Offered},
			{Device: "d3", Event: rollout.SaysDownloaded, From: rollout.Downloading, To: rollout.Downloaded},
			{Device: "d4", Event: rollout.Soaked, From: rollout.Rebooting, To: rollout.Confirmed},
		})
		r.run(t, func() {})
		if got := strings.Join(r.line.sent, ", "); got != "d1 firmware, kid1 firmware, kid2 firmware, d2 firmware" {
			t.Error(got)
		}
		r.desk.stop = true
		r.Told("r", []rollout.Change{{Device: "d2", Event: rollout.Recall, From: rollout.Downloading, To: rollout.Queued}})
		r.run(t, func() {})
		if n := len(r.line.sent); r.line.sent[n-1] != "d2 firmware/cancel" || string(r.line.last) != `{"action":257,"attempt":1}` {
			t.Errorf("%v %s", r.line.sent, r.line.last)
		}
		before := len(r.line.sent)
		r.Told("r", []rollout.Change{ // whose end the desk has not noted yet
			{Device: "d5", Event: rollout.SaysFailed, From: rollout.Downloading, To: rollout.Queued},
			{Device: "d6", Event: rollout.SaysDenied, From: rollout.Offered, To: rollout.Skipped},
			{Device: "d7", Event: rollout.SaysCanceled, From: rollout.Offered, To: rollout.Canceled},
		})
		r.run(t, func() {})
		if told := r.line.sent[before:]; len(told) > 0 {
			t.Errorf("who said that it is over is told %v", told)
		}
	})
}

func TestADeviceIsToldWhenTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		back := time.Now().Add(5 * time.Second)
		r.desk.fail = func() error {
			if time.Now().Before(back) {
				return muster.Errorf(muster.Unavailable, "away")
			}
			return nil
		}
		r.run(t, func() {
			r.Ready("d1", false)
			<-time.After(10 * time.Second) // of the bubble
		})
		if len(r.line.sent) != 1 || r.desk.asked > 10 {
			t.Errorf("%v after %d questions", r.line.sent, r.desk.asked)
		}
	})
}

func TestNothingIsToldOrGivenBeforePeopleAtTheDeviceWantIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m, tb := &mouth{}, &ear{}
		waits := func(is bool) {
			r.desk.mu.Lock()
			defer r.desk.mu.Unlock()
			r.desk.waits = is
		}
		waits(true)
		ask := func() {
			r.Get(t.Context(), "d1", []byte(`{"action":257,"off":0,"len":256}`), m)
			r.Part(t.Context(), "d1", talk.Part{Request: 1, Size: 1000}, tb)
		}
		r.run(t, func() {
			r.Ready("d1", false)
			ask()
			if got, err := r.Attributes(t.Context(), "d1"); err != nil || got != nil {
				t.Errorf("the attributes are %v, %v", got, err)
			}
			synctest.Wait()
			if len(r.line.sent)+len(r.pieces.asked) != 0 || fmt.Sprint(tb.refused) != "[NOT_FOUND]" {
				t.Errorf("sent %v, asked for %v, refused %v", r.line.sent, r.pieces.asked, tb.refused)
			}
			if len(m.errors) != 1 || !strings.Contains(m.errors[0], `"code":"consent"`) || !strings.Contains(m.errors[0], `"retry_after":30`) {
				t.Errorf("the device is told %v", m.errors)
			}
			waits(false)
			r.Wanted("d1")
			synctest.Wait()
			if ask(); len(r.line.sent) != 1 || len(r.pieces.asked) != 2 {
				t.Errorf("they want it: sent %v, asked for %v", r.line.sent, r.pieces.asked)
			}
			waits(true)
			r.Wanted("d1")
			if ask(); len(r.pieces.asked) != 2 {
				t.Error("they want it no more, and what was remembered counts")
			}
		})
	})
}

func TestWhatThingsBoardsDevicesRunIsHeardBeforePeopleWantAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.desk.waits = true
		r.run(t, func() {
			r.Observe([]muster.Reading{{
				Device: "d1", Layout: &muster.Layout{Keys: []muster.Key{{Name: "current_fw_version", Kind: muster.JSON}}}, Texts: []string{`"1.5.0"`},
			}})
			synctest.Wait()
		})
		if fmt.Sprint(r.desk.reports) != "[d1 runs  1.5.0 false]" {
			t.Errorf("%q", r.desk.reports)
		}
	})
}

// ear keeps what a ThingsBoard device is told.
type ear struct{ refused []string }

func (e *ear) Part([]byte) chunk.Given { return chunk.Taken }
func (e *ear) Refused(code string)     { e.refused = append(e.refused, code) }

func status(device, state, more string) talk.Said {
	return talk.Said{Device: muster.DeviceID(device), Payload: []byte(`{"action":257,"state":"` + state + `"` + more + `}`)}
}

func TestProgressThatFollowsProgressIsOneReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		list := []talk.Said{
			status("d1", "downloading", `,"progress":1`), status("d1", "downloading", `,"progress":2`), status("d1", "downloading", `,"progress":3`),
			status("d1", "downloaded", ""),
			{Device: "d1", Ack: true, Payload: []byte(`{"action":5}`)},
			status("d1", "nonsense", ""), status("d1", "installing", ""),
		}
		errs := r.Take(t.Context(), list)
		for i, err := range errs {
			if (err != nil) != (i == 5) {
				t.Errorf("message %d: %v", i, err)
			}
		}
		if got := strings.Join(r.desk.reports, ", "); got != "d1 downloading 3, d1 downloaded 0, d1 stopped 5, d1 installing 0" {
			t.Error(got)
		}
	})
}

func TestWhatADeviceSaysBeforeItHearsThatAnOfferWasTakenBackIsNoMistake(t *testing.T) {
	r := newRig(t)
	r.desk.refuse = muster.Errorf(muster.Conflict, "downloaded does not happen to a device that is queued")
	say := func(action int32) error {
		return r.Take(t.Context(), []talk.Said{{Device: "d1", Payload: fmt.Appendf(nil, `{"action":%d,"attempt":1,"state":"downloaded"}`, action)}})[0]
	}
	if err := say(257); muster.KindOf(err) != muster.Conflict {
		t.Errorf("of an offer that stands: %v", err)
	}
	r.desk.stop = true
	if err := say(257); err != nil {
		t.Errorf("of the one that was taken back: %v", err)
	}
	if err := say(256); muster.KindOf(err) != muster.Conflict {
		t.Errorf("of another: %v", err)
	}
}

func TestTenThousandReportsOfOneDeviceHoldUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		over := 0
		for range 20 { // a second's, in the batches of intake
			var list []talk.Said
			for i := range 499 {
				list = append(list, status("flood", []string{"downloading", "downloaded"}[i%2], ""))
			}
			list = append(list, status("other", "downloading", ""))
			for i, err := range r.Take(t.Context(), list) {
				switch {
				case i == 499 && err != nil:
					t.Fatalf("the other is refused: %v", err)
				case talk.OverRate(err):
					over++
				}
			}
			<-time.After(50 * time.Millisecond) // of the bubble
		}
		flood := 0
		for _, s := range r.desk.reports {
			if strings.HasPrefix(s, "flood") {
				flood++
			}
		}
		if flood > 25 || flood < 20 || over < 9000 {
			t.Errorf("%d of the flood were looked at, %d refused", flood, over)
		}
	})
}

func TestAPieceCostsNoQuestionToTheStoreUntilTheActionIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := &mouth{}
		get := func() { r.Get(t.Context(), "d1", []byte(`{"action":257,"off":512,"len":256,"n":2}`), m) }
		for range 100 {
			get()
		}
		if r.desk.asked != 1 || len(r.pieces.asked) != 100 || len(m.errors) != 0 {
			t.Errorf("%d questions, %d asked, %v", r.desk.asked, len(r.pieces.asked), m.errors)
		}
		if q := r.pieces.asked[0]; q.Off != 512 || q.Len != 256 || q.N != 2 || q.Size != 100_000 || q.Total != 100_000 || q.To != r.pieces.asked[99].To {
			t.Errorf("%+v", q)
		}
		r.desk.fail = func() error { return muster.Errorf(muster.NotFound, "nothing is offered") }
		r.Told("r", []rollout.Change{{Device: "d1", Event: rollout.Abort, From: rollout.Downloading, To: rollout.Canceled}})
		get()
		if r.pieces.dropped != 1 || len(m.errors) != 1 || m.errors[0] != `{"action":257,"off":512,"code":"no_action","detail":"nothing is offered"}` {
			t.Errorf("%d dropped, %v", r.pieces.dropped, m.errors)
		}
		r.desk.fail = func() error { return errors.New("secret") }
		get()
		if m.errors[1] != `{"action":257,"off":512,"code":"busy","detail":"the server cannot answer now","retry_after":30}` {
			t.Error(m.errors[1])
		}
	})
}

// reading is a message of telemetry with texts.
func reading(device string, values map[string]string) muster.Reading {
	var keys []muster.Key
	for k := range values {
		keys = append(keys, muster.Key{Name: k, Kind: muster.JSON})
	}
	r := muster.Reading{Device: muster.DeviceID(device), Layout: muster.NewLayout(keys)}
	for _, k := range r.Layout.Keys {
		r.Texts = append(r.Texts, `"`+values[k.Name]+`"`)
	}
	return r
}

func TestThingsBoardsStatesBecomeReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run(t, func() {
			r.Observe([]muster.Reading{reading("d1", map[string]string{"fw_state": "DOWNLOADING"})}) // nothing is known to be offered
			r.Ready("d1", false)
			synctest.Wait()
			for _, values := range []map[string]string{
				{"temperature": "21"},
				{"fw_state": "DOWNLOADING", "current_fw_version": "1.0.0"},
				{"fw_state": "DOWNLOADED"},
				{"fw_state": "VERIFIED"},
				{"fw_state": "UPDATING", "current_fw_version": "1.0.0"},
				{"fw_state": "QUEUED"},
				{"sw_state": "FAILED"},
				{"fw_state": "SOMETHING"},
				{"fw_state": "UPDATED", "current_fw_version": "2.0.0", "current_fw_title": "pump"},
				// Another title is another image, say the bootloader: it says nothing of the release, neither by the same
				// version nor by another, whatever the state, and is no version of the firmware.
				{"fw_state": "UPDATED", "current_fw_version": "2.0.0", "current_fw_title": "boot"},
				{"current_fw_version": "1.3.0", "current_fw_title": "boot"},
				{"fw_state": "UPDATED", "current_fw_version": "0.9.0", "current_fw_title": "Initial"}, // but the firmware's own before
				{"fw_state": "IDLE", "current_fw_version": "0.9.0", "current_fw_title": "Initial"},    // and not before it is done
				{"fw_state": "IDLE", "current_fw_version": "0.9.1", "current_fw_title": "Initial"},
				{"fw_state": "UPDATED", "current_fw_title": "boot"},
				{"fw_state": "FAILED", "fw_error": "checksum"},
			} {
				r.Observe([]muster.Reading{reading("d1", values)})
				synctest.Wait()
			}
		})
		want := "d1 downloading 0, d1 downloaded 0, d1 downloaded 0, d1 installing 0, d1 runs 2.0.0 0, " +
			"d1 runs boot 2.0.0 true, d1 runs boot 1.3.0 true, d1 other_version 0, d1 runs Initial 0.9.1 true, d1 failed 0"
		if got := strings.Join(r.desk.reports, ", "); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	})
}

func TestWhatAThingsBoardDeviceSaysOfATimeBeforeTheOfferOrTheNewestIsNotLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		const minute, arrival = muster.Micros(60_000_000), muster.Micros(1_800_000_000_000_000)
		r.desk.offered = arrival - 10*minute
		r.run(t, func() {
			r.Ready("d1", false)
			synctest.Wait()
			for i, said := range []struct {
				version string
				ago     muster.Micros
			}{
				{"0.1.0", 11 * minute}, // before the offer
				{"2.0.0", 2 * minute},  // after it, and sent later
				{"0.2.0", 3 * minute},  // before that
				{"2.0.1", 0},
				{"0.3.0", minute},
			} {
				x := reading("d1", map[string]string{"fw_state": "UPDATED", "current_fw_version": said.version})
				x.Arrival = arrival + muster.Micros(i)
				x.Time = x.Arrival - said.ago
				r.Observe([]muster.Reading{x})
				synctest.Wait()
			}
		})
		if got, want := strings.Join(r.desk.reports, ", "), "d1 runs 2.0.0 0, d1 runs 2.0.1 0"; got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	})
}
