package delta

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestOneWhoMakesPatchesRestsAsLongAsHeWorks(t *testing.T) {
	for share, want := range map[float64]time.Duration{1: 0, 0.5: 990 * time.Millisecond, 0.25: 2970 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := &until{ctx: t.Context(), r: zeros{}, share: share}
			began := time.Now()
			for range 100 {
				if _, err := r.Read(nil); err != nil {
					t.Fatal(err)
				}
				work := time.NewTimer(10 * time.Millisecond)
				<-work.C
			}
			if rested := time.Since(began) - time.Second; rested != want {
				t.Errorf("with a share of %v it rested %s, want %s", share, rested, want)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
