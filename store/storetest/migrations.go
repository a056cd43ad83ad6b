package storetest

import (
	"strings"
	"testing"

	"muster"
	"muster/ingest"
)

func testMigrations(t *testing.T, fresh func(t testing.TB) Database) {
	t.Run("an empty database is migrated up and its data found on reopening", func(t *testing.T) {
		h := start(t, fresh)
		a, b := reading("kept", epoch, "v", 1.0, "s", text(`"x"`)), reading("kept", epoch+1, loose{}, "v", 2.0)
		h.append(a, b)
		for range 3 {
			h.reopen()
			h.wantStored("kept", a, b)
			h.wantCursor(h.at)
		}
		h.wantOutcomes(h.append(a, b), ingest.Duplicate, ingest.Duplicate)
	})
	t.Run("a newer schema is refused with a clear sentence", func(t *testing.T) {
		h := start(t, fresh)
		h.append(reading("kept", epoch, "v", 1.0))
		h.close()
		h.db.SetSchemaVersion(t, 987_654)
		s, err := h.db.Open(t.Context())
		if err == nil {
			h.s = s
			t.Fatal("a store opens on a newer schema")
		}
		if muster.KindOf(err) != muster.Invalid {
			t.Errorf("the error's kind is %v, want invalid", muster.KindOf(err))
		}
		for _, part := range []string{"database schema 987654 is newer than this muster knows", "use a newer muster"} {
			if !strings.Contains(muster.Public(err), part) {
				t.Errorf("the message is %q, want it to say %q", muster.Public(err), part)
			}
		}
	})
}
