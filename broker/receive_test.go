package broker

import (
	"testing"

	"pgregory.net/rapid"
)

func TestInboundQoS2IDsAreRememberedFromPublishToPubcomp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 6
		kept := rapid.Bool().Draw(t, "kept")
		r := &received{limit: limit}
		if kept {
			r.num = 7
		}
		c := new(conn)
		want := map[uint16]stage{}
		saved := map[uint16]bool{}
		id := func(t *rapid.T) uint16 { return rapid.Uint16Range(1, 9).Draw(t, "id") }
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				n := id(t)
				got, expect := r.arrive(n, c), want[n]
				if expect == stageNew && len(want) >= limit {
					expect = stageFull
				}
				if got != expect {
					t.Fatalf("PUBLISH %d: stage %d, want %d", n, got, expect)
				}
				if got == stageNew {
					want[n] = stagePending
				}
			},
			"decide": func(t *rapid.T) {
				n, keep := id(t), rapid.Bool().Draw(t, "keep")
				if want[n] > stagePending {
					t.Skip("a message is decided once")
				}
				to, write := r.settle(n, keep)
				_, known := want[n]
				if known != (to == c) || !known && write {
					t.Fatalf("decided %d: write %v", n, write)
				}
				switch {
				case known && !keep:
					delete(want, n)
					delete(saved, n)
				case known && write:
					if !kept || saved[n] {
						t.Fatal("written down for nothing")
					}
					saved[n] = true
				case known:
					if kept && !saved[n] {
						t.Fatal("a kept session's id is not written down")
					}
					want[n] = stageKept
				}
			},
			"release": func(t *rapid.T) {
				n := id(t)
				x, again := r.free(n)
				if w := want[n]; (x != nil) != (w == stageKept || w == stageFreed) || again != (w == stageFreed) {
					t.Fatalf("PUBREL %d at stage %d: %v again %v", n, w, x != nil, again)
				}
				if x != nil {
					want[n] = stageFreed
				}
			},
			"complete": func(t *rapid.T) {
				if n := id(t); want[n] == stageFreed {
					r.abandon(n)
					delete(want, n)
					delete(saved, n)
				}
			},
			"": func(t *rapid.T) {
				if len(r.ids) != len(want) || len(r.ids) > limit {
					t.Fatalf("%d ids, want %d", len(r.ids), len(want))
				}
			},
		})
		if items := r.all(); len(items) != len(saved) || len(r.ids) != 0 {
			t.Fatalf("%d items written down, want %d", len(items), len(saved))
		}
	})
}
