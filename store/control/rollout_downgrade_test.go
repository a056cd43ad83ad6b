package control_test

import (
	"os"
	"testing"

	"muster/firmware/rollout"
	"muster/store/control"
)

func TestRollbacksFromBeforeRolloutsSaidSoAreDowngrades(t *testing.T) {
	text, err := os.ReadFile("migrations/00033_rollout_downgrade.sql")
	wantNil(t, err)
	onEach(t, func(t *testing.T, e engine) {
		h := e.open(t)
		store, err := control.Open(t.Context(), h, e.dialect)
		wantNil(t, err)
		defer func() { _ = store.Close() }()
		for id, of := range map[string]string{"back": "bad", "bad": ""} {
			r, devices := rolloutOf(id, 3, 3)
			r.Record = rollout.Record{Of: of, Note: `it has "of": in it`, CreatedBy: rollout.Person{ID: "usr_ann"}}
			wantNil(t, store.InsertRollout(t.Context(), r, devices))
		}
		_, err = h.Write.ExecContext(t.Context(), string(text))
		wantNil(t, err)
		for id, want := range map[string]bool{"back": true, "bad": false} {
			r, err := store.Rollout(t.Context(), id)
			wantNil(t, err)
			if r.Downgrade != want || r.CreatedBy.ID != "usr_ann" || (r.Of != "") != want {
				t.Errorf("%s: %+v", id, r.Record)
			}
		}
	})
}
