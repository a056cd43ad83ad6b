package hooks_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/feed"
	"muster/notify/hooks"
)

func TestMemoryAndStoreAgreeAfterAnyChanges(t *testing.T) {
	r := newRig(t)
	rapid.Check(t, func(rt *rapid.T) {
		for _, h := range r.List() {
			must(t, r.Delete(t.Context(), h.ID, nil))
		}
		var ids []string
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			pick := func() string { return rapid.SampledFrom(append([]string{"whk_none"}, ids...)).Draw(rt, "id") }
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0:
				s := spec()
				s.Types = rapid.SampledFrom([][]string{{"*"}, {"device.*"}, {"job.started", "device.created"}}).Draw(rt, "types")
				h, _ := r.make(t, s)
				ids = append(ids, h.ID)
			case 1:
				off := rapid.Bool().Draw(rt, "off")
				_, _ = r.Update(t.Context(), pick(), hooks.Change{Disabled: &off})
			case 2:
				_, _, _ = r.RotateSecret(t.Context(), pick(), time.Duration(rapid.IntRange(0, 100).Draw(rt, "overlap"))*time.Second)
			case 3:
				_ = r.Delete(t.Context(), pick(), nil)
			case 4:
				r.clock = r.clock.Add(time.Duration(rapid.IntRange(0, 60).Draw(rt, "later")) * time.Second)
			}
		}
		after := r.again(t)
		if d := cmp.Diff(after.List(), r.List()); d != "" {
			rt.Fatal(d)
		}
		for _, kind := range []string{feed.DeviceCreated, feed.JobStarted, feed.TaskFinished} {
			if a, b := len(after.Matching(feed.Event{Type: kind})), len(r.Matching(feed.Event{Type: kind})); a != b {
				rt.Fatalf("%s: %d after a restart, %d before", kind, a, b)
			}
		}
		for _, h := range r.List() {
			if keys, err := r.Keys(h); err != nil || len(keys) < 1 || len(keys) > 2 {
				rt.Fatalf("%d keys: %v", len(keys), err)
			}
		}
	})
}
