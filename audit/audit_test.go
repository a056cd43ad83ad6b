package audit_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"muster/audit"
)

func under(t *testing.T) (context.Context, *audit.Trail) {
	ctx := audit.With(t.Context(), audit.Actor{Kind: audit.Key, ID: "key_x"}, func() time.Time { return time.Unix(7, 0) })
	return ctx, audit.Of(ctx)
}

func TestWhatIsNotedIsTakenOnce(t *testing.T) {
	ctx, trail := under(t)
	audit.Note(ctx, "device.update", "devices/d1", map[string]int{"a": 1}, map[string]int{"a": 2})
	if !trail.Noted() || !trail.Pending() {
		t.Error("nothing is noted")
	}
	got := trail.Take()
	if len(got) != 1 || string(got[0].Before) != `{"a":1}` || string(got[0].After) != `{"a":2}` || got[0].Actor.ID != "key_x" || got[0].At != 7_000_000 {
		t.Errorf("taken: %+v", got)
	}
	if !trail.Noted() || trail.Pending() || len(trail.Take()) != 0 {
		t.Error("it can be taken again")
	}
}

func TestADryRunIsNoted(t *testing.T) {
	ctx, trail := under(t)
	audit.Nothing(ctx)
	if !trail.Noted() || trail.Pending() {
		t.Error("a dry run is pending, or not noted")
	}
}

func TestWithoutATrailNothingHappens(t *testing.T) {
	audit.Note(t.Context(), "a", "b", nil, nil)
	audit.Nothing(t.Context())
	if trail := audit.Of(t.Context()); trail.Noted() || trail.Pending() || trail.Take() != nil {
		t.Error("a trail came from nowhere")
	}
}

func TestNotesAreBounded(t *testing.T) {
	ctx, trail := under(t)
	for range audit.MaxNotes + 5 {
		audit.Note(ctx, "a", "b", nil, strings.Repeat("x", audit.MaxView))
	}
	got := trail.Take()
	if len(got) != audit.MaxNotes+1 || string(got[audit.MaxNotes].After) != `{"and_more":5}` {
		t.Errorf("%d notes, the last %s", len(got), got[len(got)-1].After)
	}
	if want := `{"truncated":true,"bytes":16386,"sha256":"`; !strings.HasPrefix(string(got[0].After), want) {
		t.Errorf("a large view is %s", got[0].After)
	}
	audit.Note(ctx, "a", "b", nil, map[string]string{"name": "short", "note": strings.Repeat("x", audit.MaxView)})
	if text := string(trail.Take()[0].After); !strings.Contains(text, `"name":"short"`) || !strings.Contains(text, `"note":{"truncated":true,`) {
		t.Errorf("a view with a large member is %s", text)
	}
}
