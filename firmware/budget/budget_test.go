package budget_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"muster"
	"muster/firmware/budget"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory keeps what is reserved, as a store does that outlives its servers.
type memory struct {
	mu       sync.Mutex
	reserved map[budget.Key]int64
	calls    int
	took     time.Duration // that a transaction takes
	stuck    bool          // it does not answer
	err      error
}

func (m *memory) KeepBudgets(ctx context.Context, back, claims []budget.Claim) ([]int64, error) {
	m.mu.Lock()
	stuck, took := m.stuck, m.took
	m.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return nil, muster.Errorf(muster.Unavailable, "the store is away: %w", ctx.Err())
	}
	if took > 0 {
		<-time.After(took) // of the bubble
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.err != nil {
		return nil, m.err
	}
	if m.reserved == nil {
		m.reserved = map[budget.Key]int64{}
	}
	for _, c := range back {
		m.reserved[c.Key] = max(m.reserved[c.Key]-c.Bytes, 0)
	}
	got := make([]int64, len(claims))
	for i, c := range claims {
		got[i] = max(min(c.Bytes, c.All-m.reserved[c.Key]), 0)
		m.reserved[c.Key] += got[i]
	}
	return got, nil
}

func (m *memory) of(k budget.Key) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reserved[k]
}

func take(t *testing.T, b *budget.Budgets, k budget.Key, n, release int64) int64 {
	t.Helper()
	got, err := b.Take(t.Context(), k, n, release)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

var dev = budget.Key{Device: "d", Action: 257}

func TestABudgetIsThreeTimesTheReleaseAndNoMoreOverKills(t *testing.T) {
	for _, release := range []int64{1, 1000, 100_000, 300_000, 1 << 20, 10_000_001, 1 << 30} {
		t.Run(fmt.Sprint(release), func(t *testing.T) {
			m := &memory{}
			random := rand.New(rand.NewPCG(uint64(release), 1))
			sent, kills := int64(0), int64(0)
			block := max(release/8, 1)
			for b := budget.New(m, budget.Options{}); ; {
				n := take(t, b, dev, 1+random.Int64N(max(release/3, 1)), release)
				if n == 0 {
					break
				}
				sent += n
				if lost := m.of(dev) - sent; lost < 0 || lost > block*(kills+1) {
					t.Fatalf("%d bytes are sent and %d reserved, after %d kills of at most %d", sent, m.of(dev), kills, block)
				}
				if kills < 2 && random.IntN(3) == 0 {
					b, kills = budget.New(m, budget.Options{}), kills+1 // the one before was killed
				}
			}
			if sent > 3*release || sent < 3*release-kills*block {
				t.Errorf("%d bytes of %d were sent over %d kills", sent, release, kills)
			}
		})
	}
}

// TestASmallReleaseOutlastsManyKills has the server killed in the midst of each block of a release of few KB: a
// device that gets nothing of what was reserved has a whole image left after sixteen kills.
func TestASmallReleaseOutlastsManyKills(t *testing.T) {
	for _, release := range []int64{800, 3000, 100_000} {
		m := &memory{}
		for range 16 {
			b := budget.New(m, budget.Options{})
			if n := take(t, b, dev, release, release); n != release/8 { // it is to be sent, and the server is killed
				t.Fatalf("%d of %d bytes are reserved for a piece", n, release)
			}
		}
		b, sent := budget.New(m, budget.Options{}), int64(0)
		for {
			n := take(t, b, dev, release, release)
			if sent += n; n == 0 {
				break
			}
		}
		if sent < release {
			t.Errorf("%d bytes of a release of %d are left after 16 kills", sent, release)
		}
	}
}

// TestNoBudgetIsEverExceeded holds budgets, over kills and stops, to a plain count.
func TestNoBudgetIsEverExceeded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const release = 1000
		m := &memory{}
		begin := func() *budget.Budgets { return budget.New(m, budget.Options{Most: 6}) }
		b, sent := begin(), map[budget.Key]int64{}
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				k := budget.Key{Device: "d", Action: rapid.Int64Range(0, 9).Draw(t, "action")}
				n, err := b.Take(context.Background(), k, rapid.Int64Range(1, 700).Draw(t, "bytes"), release)
				if err != nil {
					t.Fatal(err)
				}
				unsent := rapid.Int64Range(0, n).Draw(t, "unsent")
				b.Give(k, unsent)
				if sent[k] += n - unsent; sent[k] > 3*release || sent[k] > m.of(k) {
					t.Fatalf("%d bytes were sent of %d, %d are reserved", sent[k], 3*release, m.of(k))
				}
			},
			"kill": func(*rapid.T) { b = begin() },
			"stop": func(t *rapid.T) {
				if err := b.End(context.Background()); err != nil {
					t.Fatal(err)
				}
				for k, n := range sent { // a kill alone leaves more reserved than was sent
					if m.of(k) < n || m.of(k) > 3*release {
						t.Fatalf("%d bytes were sent, %d are reserved", n, m.of(k))
					}
				}
				b = begin()
			},
		})
	})
}

func TestWhatIsNotSentIsLeft(t *testing.T) {
	m := &memory{}
	b := budget.New(m, budget.Options{Times: 1})
	if n := take(t, b, dev, 600, 1000); n != 125 { // an eighth at a time
		t.Errorf("%d bytes", n)
	}
	b.Give(dev, 100)
	for _, want := range []int64{100, 125, 125, 125, 125, 125, 125, 125, 0} {
		if n := take(t, b, dev, 600, 1000); n != want {
			t.Errorf("%d bytes, want %d", n, want)
		}
	}
	b.Give(dev, 10)
	if ok, err := b.TakeAll(t.Context(), dev, 11, 1000); ok || err != nil {
		t.Errorf("11 bytes of 10: %v, %v", ok, err)
	}
	if ok, err := b.Left(t.Context(), dev, 1000); !ok || err != nil {
		t.Errorf("nothing is left, %v", err)
	}
	if ok, err := b.TakeAll(t.Context(), dev, 10, 1000); !ok || err != nil {
		t.Errorf("10 bytes of 10: %v, %v", ok, err)
	}
	if ok, err := b.Left(t.Context(), dev, 1000); ok || err != nil {
		t.Errorf("something is left, %v", err)
	}
	if ok, err := b.TakeAll(t.Context(), budget.Key{Device: "d", Action: 2}, 900, 1000); !ok || err != nil { // more than a block
		t.Errorf("900 bytes of 1000: %v, %v", ok, err)
	}
}

func TestWhatIsReservedAndNotSentIsGivenBackAtAStop(t *testing.T) {
	m := &memory{}
	b := budget.New(m, budget.Options{})
	for i := range 3000 { // more than a transaction takes
		take(t, b, budget.Key{Device: muster.DeviceID(fmt.Sprint("d", i)), Action: 1}, 100, 10<<20)
	}
	if err := b.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k, n := range m.reserved {
		if n != 100 {
			t.Fatalf("%v has %d bytes reserved, 100 were sent", k, n)
		}
	}
	if _, err := b.Take(t.Context(), dev, 1, 1); muster.KindOf(err) != muster.Unavailable {
		t.Errorf("after the end: %v", err)
	}
}

func TestWhatIsForgottenIsReadAgain(t *testing.T) {
	m := &memory{}
	b := budget.New(m, budget.Options{Most: 4})
	sent := map[budget.Key]int64{}
	for range 50 {
		for i := range 20 {
			k := budget.Key{Device: muster.DeviceID(fmt.Sprint("d", i)), Action: 1}
			sent[k] += take(t, b, k, 100, 1000)
		}
	}
	if err := b.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k, n := range sent {
		if n != 3000 || m.of(k) != 3000 {
			t.Errorf("%v got %d bytes of 3000, %d are reserved", k, n, m.of(k))
		}
	}
}

func TestManyDevicesShareATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{took: time.Millisecond}
		b := budget.New(m, budget.Options{})
		var wg sync.WaitGroup
		for i := range 900 {
			k := budget.Key{Device: muster.DeviceID(fmt.Sprint("d", i%300)), Action: 1} // three at a time of each
			wg.Go(func() {
				if n, err := b.Take(t.Context(), k, 100, 1<<20); n != 100 || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
			})
		}
		wg.Wait()
		if m.calls > 3 { // whoever came first went alone
			t.Errorf("%d transactions", m.calls)
		}
	})
}

func TestAStoreThatDoesNotAnswerGivesNoBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{stuck: true}
		b := budget.New(m, budget.Options{Wait: time.Second})
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				began := time.Now()
				n, err := b.Take(t.Context(), budget.Key{Device: "d", Action: int64(i / 2)}, 100, 1000)
				if took := time.Since(began); n != 0 || muster.KindOf(err) != muster.Unavailable || took > 2*time.Second {
					t.Errorf("%d bytes, %v, after %s", n, err, took)
				}
			})
		}
		wg.Wait()
		m.mu.Lock()
		m.stuck = false
		m.mu.Unlock()
		for i := range int64(5) {
			if n := take(t, b, budget.Key{Device: "d", Action: i}, 100, 1000); n != 100 {
				t.Errorf("it answers, and %d bytes are to be had", n)
			}
		}
		m.mu.Lock()
		m.err = muster.Errorf(muster.Unavailable, "the store is away")
		m.mu.Unlock()
		if n, err := b.Take(t.Context(), dev, 1, 1000); n != 0 || muster.KindOf(err) != muster.Unavailable {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

func TestWhoLeavesTakesNothingFromTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{took: time.Second}
		b := budget.New(m, budget.Options{})
		ctx, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { // he is the first, and at the store
			_, _ = b.Take(ctx, dev, 1, 1000) // he got it or left
		})
		synctest.Wait()
		leave()
		if n := take(t, b, dev, 100, 1000); n != 100 {
			t.Errorf("%d bytes", n)
		}
		wg.Wait()
	})
}
