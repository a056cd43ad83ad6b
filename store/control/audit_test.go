package control_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/audit"
	"muster/store/control"
)

var auditKeys = audit.Keys{Seals: []byte("0123456789abcdef0123456789abcdef"), Records: []byte("fedcba9876543210fedcba9876543210")}

// anchor keeps the head in memory.
type anchor struct {
	mu    sync.Mutex
	head  audit.Head
	bad   bool // it cannot be read
	aside int
}

func (a *anchor) Load() (audit.Head, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bad {
		return audit.Head{}, muster.Errorf(muster.Invalid, "no head")
	}
	return a.head, nil
}

func (a *anchor) Save(h audit.Head) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.head = h
	return nil
}

func (a *anchor) Aside() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bad = false
	a.aside++
	return nil
}

func newSealer(c *control.Control, a *anchor) *audit.Sealer {
	return audit.NewSealer(c, a, auditKeys, time.Now, slog.New(slog.DiscardHandler))
}

// opened returns a sealer of a log that is signed from here on.
func opened(t *testing.T, c *control.Control, a *anchor) *audit.Sealer {
	t.Helper()
	s := newSealer(c, a)
	wantNil(t, s.Open(t.Context()))
	c.SignAudit(auditKeys.MAC)
	return s
}

func run(t *testing.T, c *control.Control, statements ...string) {
	t.Helper()
	for _, text := range statements {
		_, err := c.Database().ExecContext(t.Context(), text)
		wantNil(t, err)
	}
}

func wantFound(t *testing.T, c *control.Control, a *anchor, when, what string) {
	t.Helper()
	found, _ := findings(t, c, a, time.Now())
	if !slices.ContainsFunc(found, func(f audit.Finding) bool { return strings.Contains(f.What, what) }) {
		t.Errorf("%s: %q is not in %v", when, what, found)
	}
}

// fataler is a test, also one of rapid's.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

func record(t testing.TB, c *control.Control, n int, at time.Time) {
	t.Helper()
	ctx := audit.With(context.Background(), audit.Actor{Kind: audit.Key, ID: "key_1", Address: "127.0.0.1", Request: "r"}, func() time.Time { return at })
	for i := range n {
		audit.Note(ctx, "device.update", fmt.Sprintf("devices/d%d", i), map[string]int{"n": i}, nil)
	}
	if err := c.WriteNotes(ctx); err != nil {
		t.Fatal(err)
	}
}

func findings(t fataler, c *control.Control, a *anchor, now time.Time) (found []audit.Finding, seen audit.Verified) {
	t.Helper()
	seen, err := audit.Verify(context.Background(), c, a, auditKeys, now, func(f audit.Finding) { found = append(found, f) })
	if err != nil {
		t.Fatal(err)
	}
	return found, seen
}

func TestASealedLogIsFoundWhole(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c, a := e.control(t), &anchor{}
		s := opened(t, c, a)
		wantNil(t, s.Seal(t.Context())) // nothing yet
		for _, n := range []int{1, 700, 3} {
			record(t, c, n, time.Now())
			wantNil(t, s.Seal(t.Context()))
		}
		record(t, c, 2, time.Now())
		found, seen := findings(t, c, a, time.Now())
		if len(found) != 0 || seen != (audit.Verified{Records: 706, Seals: 3, Unsealed: 2}) {
			t.Errorf("found %v, seen %+v", found, seen)
		}
		if found, _ := findings(t, c, a, time.Now().Add(2*time.Minute)); len(found) != 2 {
			t.Errorf("two records that are not sealed for two minutes give %v", found)
		}
		if a.head.Seal.Last != 704 {
			t.Errorf("beside the database is the seal of %d", a.head.Seal.Last)
		}
	})
}

func TestOfTwoSealersOneSealsARecord(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c, a := e.control(t), &anchor{}
		opened(t, c, a)
		var wg sync.WaitGroup
		for range 4 {
			s := newSealer(c, a)
			wg.Go(func() {
				for range 15 {
					record(t, c, 2, time.Now())
					if err := s.Seal(context.Background()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		wantNil(t, newSealer(c, a).Seal(t.Context()))
		last, err := c.LastSeal(t.Context())
		wantNil(t, err)
		if a.head.Seal != last || len(a.head.Breaks) != 0 {
			t.Errorf("the head is %+v, the last seal %+v", a.head, last)
		}
		if found, seen := findings(t, c, a, time.Now()); len(found) != 0 || seen.Records != 120 || seen.Unsealed != 0 {
			t.Errorf("found %v, seen %+v", found, seen)
		}
	})
}

// TestWhateverIsTamperedWithIsFound changes one thing in a sealed log.
func TestWhateverIsTamperedWithIsFound(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c, a := e.control(t), &anchor{}
		s := opened(t, c, a)
		for range 6 {
			record(t, c, 3, time.Now())
			wantNil(t, s.Seal(t.Context()))
		}
		const last = 18
		db := c.Database()
		rapid.Check(t, func(t *rapid.T) {
			seq := rapid.Int64Range(1, last).Draw(t, "record")
			column := rapid.SampledFrom([]string{"actor_kind", "actor", "actor_name", "address", "request", "action", "object", "before", "after", "mac"}).Draw(t, "column")
			// Each is undone by the next, so that the log is whole again.
			do, undo := "", ""
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				do, undo = fmt.Sprintf("UPDATE audit SET %s = %s || 'x' WHERE seq = %d", column, column, seq),
					fmt.Sprintf("UPDATE audit SET %s = substr(%s, 1, length(%s)-1) WHERE seq = %d", column, column, column, seq)
			case 1:
				do, undo = fmt.Sprintf("UPDATE audit SET at = at + 1 WHERE seq = %d", seq), fmt.Sprintf("UPDATE audit SET at = at - 1 WHERE seq = %d", seq)
			case 2: // deleted, and the rest moved up or not
				do, undo = fmt.Sprintf("UPDATE audit SET seq = -seq WHERE seq = %d", seq), fmt.Sprintf("UPDATE audit SET seq = -seq WHERE seq = -%d", seq)
			case 3:
				do, undo = fmt.Sprintf("UPDATE audit_seal SET last = -last WHERE last = %d", 3*((seq+2)/3)),
					fmt.Sprintf("UPDATE audit_seal SET last = -last WHERE last = -%d", 3*((seq+2)/3))
			case 4:
				// Moved round by a digit: another hash, whatever it is.
				do, undo = fmt.Sprintf("UPDATE audit_seal SET hash = substr(hash, 2) || substr(hash, 1, 1) WHERE last = %d", 3*((seq+2)/3)),
					fmt.Sprintf("UPDATE audit_seal SET hash = substr(hash, 64, 1) || substr(hash, 1, 63) WHERE last = %d", 3*((seq+2)/3))
			}
			do1 := func(statement string) {
				if _, err := db.ExecContext(context.Background(), statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			do1(do)
			found, _ := findings(t, c, a, time.Now())
			do1(undo)
			if len(found) == 0 {
				t.Fatalf("%s is not found", do)
			}
			if !slices.ContainsFunc(found, func(f audit.Finding) bool { return f.First <= last && f.Last >= seq-3 }) {
				t.Fatalf("%s is found elsewhere: %v", do, found)
			}
			if found, _ := findings(t, c, a, time.Now()); len(found) != 0 {
				t.Fatalf("undone it is still found: %v", found)
			}
		})
	})
}

func TestALogThatWasCutOrPutBackIsFound(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c, a := e.control(t), &anchor{}
		s := opened(t, c, a)
		record(t, c, 5, time.Now())
		wantNil(t, s.Seal(t.Context()))
		record(t, c, 5, time.Now())
		wantNil(t, s.Seal(t.Context()))
		for _, statement := range []string{
			"DELETE FROM audit WHERE seq > 5", "DELETE FROM audit_seal WHERE last > 5", "UPDATE counter SET value = 5 WHERE name = 'audit'",
		} {
			_, err := c.Database().ExecContext(t.Context(), statement)
			wantNil(t, err)
			if found, _ := findings(t, c, a, time.Now()); len(found) == 0 {
				t.Errorf("after %s nothing is found", statement)
			}
		}
		forged := &anchor{}
		record(t, c, 5, time.Now())
		wantNil(t, newSealer(c, forged).Seal(t.Context()))
		if found, _ := findings(t, c, a, time.Now()); len(found) == 0 {
			t.Error("another history of the same length is not found")
		}
	})
}

func TestTheAuditLogIsChosenFrom(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		write := func(at int64, actor, action, object string) {
			ctx := audit.With(t.Context(), audit.Actor{Kind: audit.User, ID: actor}, func() time.Time { return time.UnixMicro(at) })
			audit.Note(ctx, action, object, nil, nil)
			wantNil(t, c.WriteNotes(ctx))
		}
		write(10, "u1", "device.create", "devices/d1")
		write(20, "u2", "device.update", "devices/d1")
		write(30, "u1", "credential.create", "devices/d1/credentials/c")
		write(40, "u1", "device.create", "devices/d10")
		write(50, "u1", "profile.put", "profiles/p")
		for _, tt := range []struct {
			q    audit.Query
			want []int64
		}{
			{audit.Query{}, []int64{5, 4, 3, 2, 1}},
			{audit.Query{Limit: 2}, []int64{5, 4}},
			{audit.Query{Before: 4}, []int64{3, 2, 1}},
			{audit.Query{Object: "devices/d1"}, []int64{3, 2, 1}},
			{audit.Query{Object: "devices"}, []int64{4, 3, 2, 1}},
			{audit.Query{Actor: "u1", Action: "device.create"}, []int64{4, 1}},
			{audit.Query{Object: "devices/d1", Action: "!device.create"}, []int64{3, 2}},
			{audit.Query{From: 20, To: 40}, []int64{3, 2}},
			{audit.Query{Object: "devices/d1' OR '1'='1"}, nil},
		} {
			if tt.q.Limit == 0 {
				tt.q.Limit = 100
			}
			records, err := c.Audit(t.Context(), tt.q)
			wantNil(t, err)
			var got []int64
			for _, r := range records {
				got = append(got, r.Seq)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("%+v: %s", tt.q, d)
			}
		}
		last, err := c.AuditLast(t.Context())
		wantNil(t, err)
		if last != 5 {
			t.Errorf("the last is %d", last)
		}
		wantKind(t, c.InsertSeal(t.Context(), audit.Seal{First: 3, Last: 4}), muster.Conflict)
	})
}
