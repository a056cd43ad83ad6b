package delta_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/delta"
)

// releases are a catalogue, by id; those of a product are its bases too.
type releases struct {
	by  map[string]*firmware.Manifest
	err error
	now time.Time
}

func (c *releases) Manifest(_ context.Context, id string) (*firmware.Manifest, error) {
	if c.by[id] == nil {
		return nil, muster.Errorf(muster.NotFound, "there is no such release")
	}
	return c.by[id], c.err
}

func (c *releases) Bases(_ context.Context, product string, most int) (out []*firmware.Manifest, err error) {
	for _, m := range c.by {
		if m.Product == product && len(out) < most {
			out = append(out, m)
		}
	}
	return out, c.err
}

// release puts an image into the catalogue, of a version.
func (c *releases) release(r *rig, id, version string, b []byte, change ...func(*firmware.Manifest)) {
	m := &firmware.Manifest{Product: "pump", Version: version, Type: "app", Files: []firmware.File{{Filename: "pump.bin", SHA256: r.put(b), Size: int64(len(b))}}}
	for _, f := range change {
		f(m)
	}
	c.by[id] = m
}

func newOffers(t *testing.T, o delta.Options) (*rig, *releases, *delta.Offers) {
	t.Helper()
	r := newRig(t, o)
	c := &releases{by: map[string]*firmware.Manifest{}, now: time.Now()}
	return r, c, delta.NewOffers(r.p, c, func() time.Time { return c.now })
}

func TestAnOfferWaitsForItsPatchAndThenNamesIt(t *testing.T) {
	r, c, offers := newOffers(t, delta.Options{})
	old := program(200<<10, 1)
	c.release(r, "one", "1.0.0", old)
	c.release(r, "two", "2.0.0", changed(old, 2))
	if offers.Waits("two", "1.0.0") {
		t.Error("it waits for patches of a release that is not rolled out")
	}
	if err := offers.Refresh(t.Context(), []string{"two"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !offers.Waits("two", "v1.0") {
			t.Error("it does not wait")
		}
	}
	if _, ok := offers.Patch("two", "1.0.0", 0); ok {
		t.Error("a patch is offered that is not there")
	}
	r.run()
	pair := delta.Pair{Old: c.by["one"].Files[0].SHA256, New: c.by["two"].Files[0].SHA256}
	at := r.made(pair)
	if offers.Waits("two", "1.0.0") {
		t.Error("it waits for what is there")
	}
	p, ok := offers.Patch("two", "1.0.0", 0)
	if !ok || p.From != pair.Old || p.SHA256 != at.SHA256 || p.Size != at.Size || p.Size == 0 {
		t.Errorf("%+v %v, made was %+v", p, ok, at)
	}
	for name, file := range map[string]int{"1.0.0": 1, "2.0.0": 0, "0.9.0": 0, "": 0, "pump": 0} {
		if p, ok := offers.Patch("two", name, file); ok || offers.Waits("two", "0.9.0") {
			t.Errorf("version %q, file %d: %+v", name, file, p)
		}
	}
	if err := offers.Refresh(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := offers.Patch("two", "1.0.0", 0); ok {
		t.Error("a patch of a release that is not rolled out any more is offered")
	}
}

func TestNoOfferWaitsForEver(t *testing.T) {
	r, c, offers := newOffers(t, delta.Options{Queue: 1})
	old := program(20<<10, 1)
	c.release(r, "one", "1.0.0", old)
	c.release(r, "other", "1.1.0", changed(old, 3))
	c.release(r, "two", "2.0.0", changed(old, 2))
	refresh := func() {
		t.Helper()
		if err := offers.Refresh(t.Context(), []string{"two", "gone"}); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	if !offers.Waits("two", "1.0.0") { // nobody makes it
		t.Error("it does not wait")
	}
	if offers.Waits("two", "1.1.0") {
		t.Error("it waits for what has no place in the queue")
	}
	if offers.Waits("gone", "1.0.0") {
		t.Error("it waits for a release that is gone")
	}
	c.now = c.now.Add(delta.Waiting - time.Second)
	refresh()
	if !offers.Waits("two", "1.0.0") {
		t.Error("it does not wait any more")
	}
	c.now = c.now.Add(time.Second)
	if offers.Waits("two", "1.0.0") {
		t.Error("it waits longer than it may")
	}
	c.now, c.err = c.now.Add(time.Hour), errors.New("the store is away")
	if err := offers.Refresh(t.Context(), []string{"two"}); !errors.Is(err, c.err) {
		t.Errorf("%v", err)
	}
}

func TestAPatchThatFailedIsNotTriedAgainAtOnce(t *testing.T) {
	r, c, offers := newOffers(t, delta.Options{})
	old := program(20<<10, 1)
	c.release(r, "one", "1.0.0", old)
	c.release(r, "two", "2.0.0", changed(old, 2))
	pair := delta.Pair{Old: c.by["one"].Files[0].SHA256, New: c.by["two"].Files[0].SHA256}
	if err := errors.Join(offers.Refresh(t.Context(), []string{"two"}), r.images.Delete(pair.Old)); err != nil {
		t.Fatal(err)
	}
	r.run()
	if at := r.made(pair); at.State != delta.Failed {
		t.Fatalf("%+v", at)
	}
	r.put(old)
	c.now = time.Now().Add(30 * time.Minute)
	if offers.Waits("two", "1.0.0") || r.p.Find(pair).State != delta.Failed {
		t.Error("it is tried again at once")
	}
	c.now = time.Now().Add(2 * time.Hour)
	offers.Waits("two", "1.0.0") // a device came long ago: it waits no more, the patch is made all the same
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if at, err := r.p.Wait(ctx, pair); err != nil || at.State != delta.Ready {
		t.Errorf("it is not tried again: %+v, %v", at, err)
	}
}

func TestWhichImageADeviceHasMustBeKnown(t *testing.T) {
	on := func(board string) func(*firmware.Manifest) {
		return func(m *firmware.Manifest) { m.Hardware = []firmware.Hardware{{Board: board}} }
	}
	old := program(20<<10, 1)
	for name, c := range map[string]struct {
		make  func(r *rig, c *releases)
		waits bool
	}{
		"by the file's name": {func(r *rig, c *releases) {
			c.release(r, "one", "1.0.0", old, func(m *firmware.Manifest) { m.Files[0].Filename = "pump-1.0.0.bin" })
			c.release(r, "two", "2.0.0", changed(old, 2))
		}, false},
		"by the type": {func(r *rig, c *releases) {
			c.release(r, "one", "1.0.0", old, func(m *firmware.Manifest) { m.Type = "model" })
			c.release(r, "two", "2.0.0", changed(old, 2))
		}, false},
		"by the hardware, of two": {func(r *rig, c *releases) {
			c.release(r, "one", "1.0.0", old, on("p1"))
			c.release(r, "other", "1.0.0", changed(old, 9), on("p2"))
			c.release(r, "two", "2.0.0", changed(old, 2), on("p1"))
		}, true},
		"or there is no patch": {func(r *rig, c *releases) {
			c.release(r, "one", "1.0.0", old, on("p1"))
			c.release(r, "other", "1.0.0", changed(old, 9), on("p2"))
			c.release(r, "two", "2.0.0", changed(old, 2))
		}, false},
		"and be another": {func(r *rig, c *releases) {
			c.release(r, "one", "1.0.0", old)
			c.release(r, "two", "2.0.0", old)
		}, false},
		"and not be too large": {func(r *rig, c *releases) {
			c.release(r, "one", "1.0.0", old, func(m *firmware.Manifest) { m.Files[0].Size = delta.MaxImage + 1 })
			c.release(r, "two", "2.0.0", changed(old, 2))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, catalogue, offers := newOffers(t, delta.Options{})
			c.make(r, catalogue)
			if err := offers.Refresh(t.Context(), []string{"two"}); err != nil {
				t.Fatal(err)
			}
			if waits := offers.Waits("two", "1.0.0"); waits != c.waits {
				t.Errorf("it waits: %v", waits)
			}
		})
	}
}
