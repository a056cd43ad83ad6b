package devices_test

import (
	"context"
	"testing"
	"time"

	"muster"
	"muster/devices"
)

func TestASelectorFollowsTheGroupsItNames(t *testing.T) {
	r := selectorRegistry(t)
	if err := r.PutGroup(t.Context(), devices.Group{Name: "mine", Query: "id:a"}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
		a, b bool
	}{
		{"as it was made", func(context.Context) error { return nil }, true, false},
		{"as its saved query is changed", func(ctx context.Context) error { return r.PutGroup(ctx, devices.Group{Name: "mine", Query: "id:b"}) }, false, true},
		{"none when the group is gone", func(ctx context.Context) error { return r.DeleteGroup(ctx, "mine") }, false, false},
		{"again when it is back", func(ctx context.Context) error { return r.PutGroup(ctx, devices.Group{Name: "mine", Query: "id:a"}) }, true, false},
	} {
		if err := step.do(t.Context()); err != nil {
			t.Fatal(step.name, err)
		}
		for range 2 { // loaded, and kept
			if a, b := r.Covers("group:mine", "a"), r.Covers("group:mine", "b"); a != step.a || b != step.b {
				t.Errorf("%s: a %v, b %v", step.name, a, b)
			}
		}
	}
	if !r.Covers("", "b") || r.Covers("id:*", "nobody") {
		t.Error("no selector is not all, or one covers a device that is not there")
	}
	if _, err := r.Selector("group:nothing"); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("a selector that names nothing: %v", err)
	}
	if f := r.SelectorFigures(); f.Hits == 0 || f.Entries == 0 {
		t.Errorf("%+v", f)
	}
}

func TestADeviceThatIsNotMadeYetMatchesAsItWould(t *testing.T) {
	r := selectorRegistry(t)
	tags, err := devices.TagsOf(map[string]string{"site": "berlin"})
	if err != nil {
		t.Fatal(err)
	}
	spec := devices.Spec{ID: "new", Name: "New", Tags: tags, Parent: "a", Credential: devices.Token}
	for q, want := range map[string]bool{
		"id:new": true, "id:old": false, "tag:site=berlin": true, "tag:site=rome": false, "parent:a": true, "status:never": true,
		"status:online": false, "has:credential": true, "has:children": false, "profile:default": true, "created<1m": true,
	} {
		e, err := r.Compile(q)
		if err != nil {
			t.Fatal(q, err)
		}
		if got := r.WouldMatch(spec, e); got != want {
			t.Errorf("%s: %v before it is made", q, got)
		}
	}
	all, err := r.Compile("")
	if err != nil {
		t.Fatal(err)
	}
	if r.WouldMatch(devices.Spec{ID: "no/id"}, all) {
		t.Error("a device that cannot be made matches")
	}
}

func BenchmarkCompile(b *testing.B) {
	r := selectorRegistry(b)
	const q = "(tag:site=berlin or tag:site=rome) status!=offline not id:test-*"
	b.Run("compiled each time", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.Compile(q); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("kept", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.Selector(q); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("asked about a device", func(b *testing.B) {
		e, _ := r.Selector(q)
		for b.Loop() {
			r.Matches("a", e)
		}
	})
	b.Run("both", func(b *testing.B) {
		for b.Loop() {
			r.Covers(q, "a")
		}
	})
}

func selectorRegistry(t testing.TB) *devices.Registry {
	t.Helper()
	r := devices.NewRegistry(newMemory(), time.Now, quiet(), devices.Options{})
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []muster.DeviceID{"a", "b"} {
		if _, _, err := r.Create(t.Context(), devices.Spec{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}
