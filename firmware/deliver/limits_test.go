package deliver_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/firmware/budget"
	"muster/firmware/deliver"
)

func TestAnImageIsHandedToTheConnectionAsAFile(t *testing.T) {
	net := func(t *testing.T, size int, l deliver.Limits) *rig { // by net/http, where a server has other connections
		return newRigOn(t, size, l, func(*httptest.Server) {})
	}
	for name, c := range map[string]struct {
		rig func(t *testing.T, size int, l deliver.Limits) *rig
		l   deliver.Limits
	}{
		"without a limit of bandwidth": {newRig, deliver.Limits{}}, "with one": {newRig, deliver.Limits{Bandwidth: 1 << 30}}, "by net/http": {net, deliver.Limits{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.rig(t, 5<<20, c.l)
			a := r.do(http.MethodGet, r.at("d1", 1))
			if a.status != 200 || !bytes.Equal(a.body, r.image) {
				t.Fatalf("status %d, %d bytes: %v", a.status, len(a.body), a.err)
			}
			r.idle()
			// net/http itself writes the first 512 bytes with the header.
			if got, want := r.files.Load(), int64(len(r.image)-512); got < want {
				t.Errorf("%d bytes went as a file, want %d: a ResponseWriter is wrapped without its ReadFrom", got, want)
			}
			r.files.Store(0)
			r.do(http.MethodGet, r.at("d1", 1), "Range", "bytes=1000000-2999999")
			r.idle()
			if got := r.files.Load(); got < 2_000_000-512 {
				t.Errorf("%d bytes of a range went as a file", got)
			}
		})
	}
}

func TestWhoMayNotHaveAnImageGetsAClearAnswer(t *testing.T) {
	r := newRig(t, 1000, deliver.Limits{})
	errs := map[muster.DeviceID]error{
		"over":    muster.Errorf(muster.Conflict, "the action is over"),
		"gone":    muster.Errorf(muster.NotFound, "there is no such device"),
		"blocked": muster.Errorf(muster.Forbidden, "the device is blocked"),
		"away":    muster.Errorf(muster.Unavailable, "the store is away"),
		"fault":   io.ErrUnexpectedEOF,
	}
	r.allowed = func(ctx context.Context, g deliver.Grant) error {
		if _, ok := ctx.Deadline(); !ok || g.Digest == [32]byte{} || g.Action != 3 {
			t.Errorf("asked for %+v without a deadline or a right", g)
		}
		return errs[g.Device]
	}
	for device, want := range map[muster.DeviceID]struct {
		status int
		code   string
	}{
		"over": {410, "gone"}, "gone": {404, "not_found"}, "blocked": {403, "forbidden"}, "away": {503, "unavailable"}, "fault": {500, "internal"},
	} {
		a := r.do(http.MethodGet, r.at(device, 3))
		if a.status != want.status || !bytes.Contains(a.body, []byte(`"code":"`+want.code+`"`)) || a.header.Get("Content-Type") != "application/problem+json" ||
			a.header.Get("Cache-Control") != "no-store" || a.header.Get("ETag") != "" {
			t.Errorf("%s: status %d, %s, %v", device, a.status, a.body, a.header)
		}
		if (a.header.Get("Retry-After") != "") != (want.status == 503) {
			t.Errorf("%s: Retry-After %q", device, a.header.Get("Retry-After"))
		}
	}
	foreign := r.do(http.MethodGet, strings.Replace(r.at("over", 3), "d=over", "d=good", 1))
	unsigned := r.do(http.MethodGet, r.url+deliver.Path+strings.Repeat("a", 64))
	missing := r.do(http.MethodGet, r.signer.URL(r.url, [32]byte{9}, "good", 3, time.Now().Add(time.Hour)))
	old := r.do(http.MethodGet, r.signer.URL(r.url, r.digest, "good", 3, time.Now().Add(-time.Second)))
	if foreign.status != 403 || unsigned.status != 401 || unsigned.header.Get("WWW-Authenticate") == "" || missing.status != 404 || old.status != 403 {
		t.Errorf("foreign %d, unsigned %d, missing %d, old %d", foreign.status, unsigned.status, missing.status, old.status)
	}
	if got := r.count("muster_firmware_downloads_total", "refused"); got != 7 {
		t.Errorf("%v are counted as refused", got)
	}
	if got := r.count("muster_firmware_downloads_total", "failed"); got != 2 {
		t.Errorf("%v are counted as failed", got)
	}
}

func TestADeviceGetsAnImageThreeTimesForAnAction(t *testing.T) {
	const size = 3 << 20
	r := newRig(t, size, deliver.Limits{Bandwidth: 1 << 32})
	total := 0
	get := func(action int64, header ...string) answer {
		a := r.do(http.MethodGet, r.at("d1", action), header...)
		if a.status < 300 {
			total += len(a.body)
		}
		return a
	}
	for range 2 {
		if a := get(1); a.status != 200 || len(a.body) != size {
			t.Fatalf("status %d, %d bytes", a.status, len(a.body))
		}
	}
	if a := get(1, "Range", "bytes=0-1048575"); a.status != 206 || len(a.body) != 1<<20 {
		t.Fatalf("status %d, %d bytes", a.status, len(a.body))
	}
	if a := r.do(http.MethodHead, r.at("d1", 1)); a.status != 200 {
		t.Errorf("HEAD: status %d", a.status)
	}
	cut := get(1) // what is left is two thirds of it
	if cut.err == nil || cut.status != 200 || total != 3*size {
		t.Errorf("status %d, %d bytes in all, want %d; the answer that was cut looked whole: %v", cut.status, total, 3*size, cut.err == nil)
	}
	for _, header := range [][]string{nil, {"Range", "bytes=0-0"}} {
		if a := get(1, header...); a.status != 403 || !bytes.Contains(a.body, []byte(`"code":"budget_spent"`)) {
			t.Errorf("status %d, %s", a.status, a.body)
		}
	}
	if a := get(2, "Range", "bytes=0-0"); a.status != 206 {
		t.Errorf("another action: status %d", a.status)
	}
	if a := r.do(http.MethodGet, r.at("d2", 1), "Range", "bytes=0-0"); a.status != 206 {
		t.Errorf("another device: status %d", a.status)
	}
	r.idle()
	if got := r.count("muster_firmware_sent_bytes_total", ""); got != 3*size+2 {
		t.Errorf("%v bytes are counted", got)
	}
	if got := r.count("muster_firmware_downloads_total", "spent"); got != 3 {
		t.Errorf("%v are counted as spent", got)
	}
}

func TestNoByteIsSentThatIsNotCounted(t *testing.T) {
	const size = 4 << 20 // eight blocks
	r := newRig(t, size, deliver.Limits{Bandwidth: 1 << 32})
	r.counted.Away(true)
	a := r.do(http.MethodGet, r.at("d1", 1))
	if a.status != 503 || a.header.Get("Retry-After") == "" || !bytes.Contains(a.body, []byte(`"code":"unavailable"`)) {
		t.Errorf("while the store is away: status %d, %s", a.status, a.body)
	}
	r.counted.Away(false)
	if a := r.do(http.MethodGet, r.at("d1", 1), "Range", "bytes=0-9"); a.status != 206 {
		t.Fatalf("status %d", a.status)
	}
	r.idle()
	r.counted.Away(true)
	a = r.do(http.MethodGet, r.at("d1", 1)) // what was reserved is sent, and no more
	if a.status != 200 || a.err == nil || len(a.body) != size/8-10 {
		t.Errorf("status %d, %d bytes, %v", a.status, len(a.body), a.err)
	}
	r.counted.Away(false)
	if a := r.do(http.MethodGet, r.at("d1", 1), "Range", "bytes="+strconv.Itoa(size/8)+"-"); a.status != 206 || len(a.body) != size-size/8 {
		t.Errorf("the store is back: status %d, %d bytes", a.status, len(a.body))
	}
}

func TestWhatAnotherDoorSentIsCountedHere(t *testing.T) {
	const size = 1 << 20
	r := newRig(t, size, deliver.Limits{})
	key := budget.Key{Device: "d1", Action: 1}
	for left := int64(2*size + size/2); left > 0; {
		n, err := r.budgets.Take(t.Context(), key, left, size)
		if err != nil || n == 0 {
			t.Fatalf("%d bytes, %v", n, err)
		}
		left -= n
	}
	if a := r.do(http.MethodGet, r.at("d1", 1)); a.status != 200 || a.err == nil || len(a.body) != size/2 {
		t.Errorf("status %d, %d bytes of the %d that are left: %v", a.status, len(a.body), size/2, a.err)
	}
	if a := r.do(http.MethodGet, r.at("d1", 1)); a.status != 403 {
		t.Errorf("status %d", a.status)
	}
}

// stalled begins a download and reads no more than its beginning. What ends it is returned.
func (r *rig) stalled(url string) (stop func()) {
	r.Helper()
	ctx, cancel := context.WithCancel(r.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		r.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		r.Fatalf("status %d", resp.StatusCode)
	}
	return func() {
		cancel()
		resp.Body.Close()
	}
}

// await asks until ok, and fails after 20 s.
func (r *rig) await(what string, ok func() bool) {
	r.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			r.Fatal("waited in vain for " + what)
		}
	}
}

// idle waits until every answer has ended on the server's side too.
func (r *rig) idle() {
	r.Helper()
	r.await("all to have ended", func() bool { return r.count("muster_firmware_downloads", "") == 0 })
}

func TestADeviceHasTwoDownloadsAtATimeAndItsSlotsComeBack(t *testing.T) {
	r := newRig(t, 64<<20, deliver.Limits{}) // more than sockets hold
	one, two := r.stalled(r.at("d1", 1)), r.stalled(r.at("d1", 2))
	third := r.do(http.MethodGet, r.at("d1", 3))
	if third.status != 429 || third.header.Get("Retry-After") == "" {
		t.Errorf("the third: status %d, %v", third.status, third.header)
	}
	if a := r.do(http.MethodGet, r.at("d2", 3), "Range", "bytes=0-0"); a.status != 206 {
		t.Errorf("another device: status %d", a.status)
	}
	r.await("only the first two to go on", func() bool { return r.count("muster_firmware_downloads", "") == 2 })
	one()
	r.await("a slot to come back", func() bool { return r.do(http.MethodGet, r.at("d1", 3), "Range", "bytes=0-0").status == 206 })
	two()
	r.await("all to have ended", func() bool { return r.count("muster_firmware_downloads", "") == 0 })
	if got := r.count("muster_firmware_downloads_total", "cut"); got != 2 {
		t.Errorf("%v are counted as cut", got)
	}
}

func TestAClientThatTakesNothingIsCut(t *testing.T) {
	r := newRig(t, 64<<20, deliver.Limits{Stall: 50 * time.Millisecond})
	defer r.stalled(r.at("d1", 1))()
	r.await("it to be cut", func() bool { return r.count("muster_firmware_downloads_total", "cut") == 1 })
}

func TestTheEndCutsDownloadsThatGoOnAndLetsInNoMore(t *testing.T) {
	r := newRig(t, 64<<20, deliver.Limits{})
	defer r.stalled(r.at("d1", 1))()
	slow := newRig(t, 1<<20, deliver.Limits{Bandwidth: 1}) // waits for its turn
	defer slow.stalled(slow.at("d1", 1))()
	for _, r := range []*rig{r, slow} {
		r.handler.End()
	}
	r.await("it to be cut", func() bool { return r.count("muster_firmware_downloads_total", "cut") == 1 })
	slow.await("it to be cut", func() bool { return slow.count("muster_firmware_downloads_total", "cut") == 1 })
	if a := r.do(http.MethodGet, r.at("d1", 1)); a.status != 503 {
		t.Errorf("status %d", a.status)
	}
}

func TestManyDownloadsAreAllWhole(t *testing.T) {
	r := newRig(t, 2<<20, deliver.Limits{Bandwidth: 1 << 29})
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			device := muster.DeviceID("d" + string(rune('A'+i/2)))
			from := i * 1000
			a := r.do(http.MethodGet, r.at(device, 1), "Range", "bytes="+strconv.Itoa(from)+"-")
			if a.status != 206 || !bytes.Equal(a.body, r.image[from:]) {
				t.Errorf("status %d, %d bytes: %v", a.status, len(a.body), a.err)
			}
		})
	}
	wg.Wait()
}

func TestWhetherAnActionGoesOnIsAskedOnceInAWhileForEach(t *testing.T) {
	var mu sync.Mutex
	now, asked := time.Now(), 0
	r := newRig(t, 1000, deliver.Limits{})
	r.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	var over error
	r.allowed = func(context.Context, deliver.Grant) error {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return over
	}
	get := func(device muster.DeviceID, want, times int) {
		t.Helper()
		if a := r.do(http.MethodGet, r.at(device, 1), "Range", "bytes=0-1"); a.status != want {
			t.Errorf("status %d, want %d", a.status, want)
		}
		mu.Lock()
		defer mu.Unlock()
		if asked != times {
			t.Errorf("it was asked %d times, want %d", asked, times)
		}
	}
	get("d1", 206, 1)
	get("d1", 206, 1)
	get("d2", 206, 2)
	mu.Lock()
	over, now = muster.Errorf(muster.Conflict, "the action is over"), now.Add(2*time.Second)
	mu.Unlock()
	get("d1", 410, 3)
	get("d1", 410, 4)
}

func TestADownloadUnderWayEndsWhenItsImageIsChangedOnDisk(t *testing.T) {
	const size = 8 << 20
	r := newRig(t, size, deliver.Limits{Bandwidth: 1 << 32})
	var clock atomic.Int64 // each look at it is a second later
	r.now = func() time.Time { return time.Unix(1_800_000_000+clock.Add(1), 0) }
	asked := atomic.Int64{}
	r.allowed = func(context.Context, deliver.Grant) error {
		if asked.Add(1) != 2 {
			return nil
		}
		was, err := os.Stat(r.path)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(r.path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte("another"), size-100)
			err = errors.Join(err, f.Close(), os.Chtimes(r.path, was.ModTime(), was.ModTime())) // as if nothing had been
		}
		return err
	}
	a := r.do(http.MethodGet, r.signer.URL(r.url, r.digest, "d1", 3, time.Unix(1_900_000_000, 0)))
	if a.status != http.StatusOK || a.err == nil || len(a.body) >= size || asked.Load() < 2 {
		t.Errorf("status %d, %d bytes, %v; asked %d times", a.status, len(a.body), a.err, asked.Load())
	}
}

func TestADownloadUnderWayEndsWhenItsGrantDoes(t *testing.T) {
	const size = 8 << 20
	r := newRig(t, size, deliver.Limits{Bandwidth: 1 << 32})
	var clock atomic.Int64 // each look at it is a second later
	r.now = func() time.Time { return time.Unix(1_800_000_000+clock.Add(1), 0) }
	asked := atomic.Int64{}
	r.allowed = func(context.Context, deliver.Grant) error {
		if asked.Add(1) > 1 {
			return muster.Errorf(muster.Conflict, "the release was withdrawn")
		}
		return nil
	}
	a := r.do(http.MethodGet, r.signer.URL(r.url, r.digest, "d1", 3, time.Unix(1_900_000_000, 0)))
	if a.status != http.StatusOK || a.err == nil || len(a.body) >= size || asked.Load() < 2 {
		t.Errorf("status %d, %d bytes, %v; asked %d times", a.status, len(a.body), a.err, asked.Load())
	}
}
