package control_test

import (
	"fmt"
	"testing"
	"time"

	"muster/audit"
)

const forged = "INSERT INTO audit (seq, at, actor_kind, actor, actor_name, address, request, action, object, before, after, mac) VALUES (%d, %d, 'user', 'usr_1', 'Ana', '', '', 'device.delete', 'devices/d1', 'null', 'null', '%s')"

func TestALogThatWasCutIsFoundForEverThoughSealingGoesOn(t *testing.T) {
	cut := []string{"DELETE FROM audit WHERE seq > 6", "DELETE FROM audit_seal WHERE last > 6", "UPDATE counter SET value = 6 WHERE name = 'audit'"}
	for _, tt := range []struct {
		name, what string
		do         []string
		restarted  bool
	}{
		{"cut beside a running server", "cut short or put back", cut, false},
		{"cut while it was stopped", "cut short or put back", cut, true},
		{"all seals removed", "cut short or put back", []string{"DELETE FROM audit_seal"}, false},
		{"the newest seal is another", "not the one that was kept", []string{"UPDATE audit_seal SET hash = substr(hash, 2) || substr(hash, 1, 1) WHERE last = 12"}, false},
		{"the records cut off and the seals left", "the counter was set back", []string{"DELETE FROM audit WHERE seq > 6", "UPDATE counter SET value = 6 WHERE name = 'audit'"}, false},
		{"a record that waited for its seal removed", "records are missing", []string{"UPDATE counter SET value = 14 WHERE name = 'audit'"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onEach(t, func(t *testing.T, e engine) {
				c, a := e.control(t), &anchor{}
				s := opened(t, c, a)
				for range 4 {
					record(t, c, 3, time.Now())
					wantNil(t, s.Seal(t.Context()))
				}
				expected := a.head.Seal
				run(t, c, tt.do...)
				if tt.restarted {
					s = opened(t, c, a)
				} else {
					wantNil(t, s.Seal(t.Context()))
				}
				for range 5 { // past where it was cut
					record(t, c, 3, time.Now())
					wantNil(t, s.Seal(t.Context()))
				}
				wantFound(t, c, a, "after much was sealed", tt.what)
				last, err := c.LastSeal(t.Context())
				wantNil(t, err)
				n, err := c.AuditLast(t.Context())
				wantNil(t, err)
				if last.Last != n || a.head.Seal.Last != n || a.head.Seal.Hash != last.Hash {
					t.Errorf("sealed are %d and %d of %d", last.Last, a.head.Seal.Last, n)
				}
				st := s.Status()
				if st.Broken != int64(len(a.head.Breaks)) || st.Broken == 0 || st.Last == nil || st.Sealed != n || st.Signed != 1 {
					t.Errorf("status %+v of %+v", st, a.head.Breaks)
				}
				if tt.what == "cut short or put back" && a.head.Breaks[0].Expected != fmt.Sprintf("%x", expected.Hash) {
					t.Errorf("kept is %+v, not the seal of %d", a.head.Breaks[0], expected.Last)
				}
				if s = opened(t, c, a); s.Status().Broken != st.Broken {
					t.Errorf("a restart found %d more", s.Status().Broken-st.Broken)
				}
			})
		})
	}
}

func TestARecordThatMusterDidNotWriteIsFoundForEver(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		for _, restarted := range []bool{false, true} {
			for _, mac := range []string{"", "00", "copied"} {
				t.Run(fmt.Sprintf("restarted %v, code %q", restarted, mac), func(t *testing.T) {
					c, a := e.control(t), &anchor{}
					run(t, c, "DELETE FROM audit", "DELETE FROM audit_seal", "UPDATE counter SET value = 0")
					s := opened(t, c, a)
					record(t, c, 3, time.Now())
					wantNil(t, s.Seal(t.Context()))
					if mac == "copied" {
						rows, err := c.AuditAfter(t.Context(), 2, 1)
						wantNil(t, err)
						mac = rows[0].MAC
					}
					run(t, c, fmt.Sprintf(forged, 4, time.Now().UnixMicro(), mac), "UPDATE counter SET value = 4 WHERE name = 'audit'")
					wantFound(t, c, a, "before it is sealed", "was not written by Muster")
					if restarted {
						s = opened(t, c, a)
					}
					wantNil(t, s.Seal(t.Context()))
					record(t, c, 3, time.Now())
					wantNil(t, s.Seal(t.Context()))
					wantFound(t, c, a, "after more", "was not written by Muster, or was changed (found at")
					if b := a.head.Breaks; len(b) != 1 || b[0].First != 4 || b[0].Last != 4 || a.head.Seal.Last != 7 {
						t.Errorf("the head is %+v", a.head)
					}
					run(t, c, "UPDATE audit SET object = 'devices/d2' WHERE seq = 4") // whatever is done to it then
					wantFound(t, c, a, "after it was changed", "was not written by Muster, or was changed (found at")
				})
			}
		}
	})
}

func TestRecordsFromBeforeTheCodesAreOldUpToTheMarkAndNoFurther(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c, a := e.control(t), &anchor{}
		record(t, c, 5, time.Now()) // as an older server did: no code
		s := opened(t, c, a)
		wantNil(t, s.Seal(t.Context()))
		record(t, c, 5, time.Now())
		wantNil(t, s.Seal(t.Context()))
		found, seen := findings(t, c, a, time.Now())
		if len(found) != 0 || seen.Records != 10 || a.head.Signed != 6 {
			t.Errorf("found %v, seen %+v, the mark is %d", found, seen, a.head.Signed)
		}
		a.head.Signed = 0 // a head of an older server was put back: the chain has the mark
		wantNil(t, newSealer(c, a).Open(t.Context()))
		if a.head.Signed != 6 || len(a.head.Breaks) != 0 {
			t.Errorf("the mark is %d, breaks %v", a.head.Signed, a.head.Breaks)
		}
		run(t, c, "UPDATE audit_seal SET signed = 11")
		wantFound(t, c, a, "after the mark was moved", "as the first with a code, not 6")
	})
}

func TestALogWithoutItsHeadIsBroken(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c, a := e.control(t), &anchor{}
		s := opened(t, c, a)
		for range 2 {
			record(t, c, 3, time.Now())
			wantNil(t, s.Seal(t.Context()))
		}
		whole := a.head
		a.head = audit.Head{}
		wantFound(t, c, a, "without a head", "is lost")
		wantNil(t, s.Seal(t.Context()))
		wantFound(t, c, a, "after a seal", "is lost")
		a.head, a.bad = whole, true
		wantNil(t, s.Seal(t.Context()))
		record(t, c, 3, time.Now())
		wantNil(t, s.Seal(t.Context()))
		wantFound(t, c, a, "of a head that is none", "put aside")
		if a.aside != 1 || a.head.Seal.Last != 9 || a.head.Signed != 1 {
			t.Errorf("put aside %d times, the head is %+v", a.aside, a.head)
		}
	})
}

func TestAServerThatEndedBetweenASealAndItsHeadLeavesNoBreak(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c, a := e.control(t), &anchor{}
		s := opened(t, c, a)
		for range 3 {
			before := a.head
			record(t, c, 3, time.Now())
			wantNil(t, s.Seal(t.Context()))
			last := a.head.Seal
			a.head = before
			if s = opened(t, c, a); a.head.Seal.Hash != last.Hash || len(a.head.Breaks) != 0 {
				t.Errorf("the head is %+v, want %+v", a.head, last)
			}
		}
		before := a.head
		run(t, c, fmt.Sprintf(forged, 10, time.Now().UnixMicro(), ""), "UPDATE counter SET value = 10 WHERE name = 'audit'")
		wantNil(t, s.Seal(t.Context()))
		kept := a.head.Breaks
		a.head.Seal = before.Seal
		opened(t, c, a)
		if len(kept) != 1 || len(a.head.Breaks) != 1 || a.head.Seal.Last != 10 {
			t.Errorf("a forged record is told twice, or not: %+v", a.head)
		}
		a.head = before // another server's, with its own key
		run(t, c, "UPDATE audit_seal SET hash = substr(hash, 2) || substr(hash, 1, 1) WHERE last = 10")
		opened(t, c, a)
		wantFound(t, c, a, "a seal after the head that is none of ours", "are not what was sealed (found at")
	})
}
