package control_test

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"muster"
	"muster/devices"
	"muster/firmware/budget"
	"muster/firmware/rollout"
)

// keep keeps claims, and returns what they got.
func (x *counter) keep(back []budget.Claim, claims ...budget.Claim) []int64 {
	x.t.Helper()
	got, err := x.store.KeepBudgets(x.t.Context(), back, claims)
	if err != nil {
		x.t.Fatal(err)
	}
	return got
}

// made makes the devices of the rollout in the registry, and returns the actions of two.
func (x *counter) made() (one, two budget.Key) {
	x.t.Helper()
	list := make([]devices.Device, 10)
	_, ds := rolloutOf("r", 10, 10)
	for i := range ds {
		list[i] = device(string(ds[i].ID))
	}
	wantNil(x.t, x.store.InsertDevices(x.t.Context(), list, nil))
	key := func(id muster.DeviceID) budget.Key {
		return budget.Key{Device: id, Action: int64(x.is(id, "offered", false).Action)}
	}
	return key("dev-000001"), key("dev-000002")
}

func TestABudgetIsReservedUpToAllOfItAndGivenBack(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 10)
		one, two := x.made()
		want := func(got []int64, want ...int64) {
			t.Helper()
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		want(x.keep(nil, budget.Claim{Key: two, Bytes: 10, All: 30}, budget.Claim{Key: one, Bytes: 20, All: 30}), 10, 20)
		want(x.keep(nil, budget.Claim{Key: one, Bytes: 20, All: 30}), 10)
		want(x.keep(nil, budget.Claim{Key: one, Bytes: 1, All: 30}, budget.Claim{Key: two, Bytes: 1, All: 30}), 0, 1)
		want(x.keep([]budget.Claim{{Key: one, Bytes: 5}, {Key: two, Bytes: 100}}, budget.Claim{Key: one, Bytes: 20, All: 30}), 5)
		if n, err := x.store.BudgetOf(t.Context(), two.Device, two.Action); err != nil || n != 0 {
			t.Errorf("more was given back than was reserved: %d is left, %v", n, err)
		}
		stranger := budget.Key{Device: "nobody", Action: one.Action}
		want(x.keep([]budget.Claim{{Key: stranger, Bytes: 5}}, budget.Claim{Key: stranger, Bytes: 1, All: 30}), 0)
		want(x.keep(nil, budget.Claim{Key: budget.Key{Device: one.Device, Action: one.Action + 1}, Bytes: 1, All: 30}), 0)
	})
}

func TestABudgetGoesWithItsDeviceAndWithItsNextAction(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 10)
		one, two := x.made()
		x.keep(nil, budget.Claim{Key: one, Bytes: 10, All: 30}, budget.Claim{Key: two, Bytes: 10, All: 30})
		left := func(k budget.Key) int64 {
			t.Helper()
			n, err := x.store.BudgetOf(t.Context(), k.Device, k.Action)
			wantNil(t, err)
			return n
		}
		x.says(two.Device, rollout.Fact{Event: rollout.SaysFailed, Action: int32(two.Action)})
		if got := x.keep(nil, budget.Claim{Key: two, Bytes: 1, All: 30}); got[0] != 0 {
			t.Errorf("an action that is over got %d bytes", got[0])
		}
		x.at = x.at.Add(5e9)
		x.tick()
		next := budget.Key{Device: two.Device, Action: int64(x.is(two.Device, "offered", false).Action)}
		if got := x.keep(nil, budget.Claim{Key: next, Bytes: 7, All: 30}); next.Action == two.Action || got[0] != 7 || left(two) != 0 || left(next) != 7 {
			t.Errorf("after the next action %d has %d bytes, %d has %d", two.Action, left(two), next.Action, left(next))
		}
		wantNil(t, x.store.EraseDevices(t.Context(), []muster.DeviceID{one.Device}, 1))
		if left(one) != 0 || left(next) != 7 {
			t.Errorf("of the deleted device %d bytes are left, of the other %d", left(one), left(next))
		}
		if got := x.keep([]budget.Claim{{Key: one, Bytes: 1}}, budget.Claim{Key: one, Bytes: 1, All: 30}, budget.Claim{Key: next, Bytes: 1, All: 30}); got[0] != 0 || got[1] != 1 || left(one) != 0 {
			t.Errorf("the deleted device got %d bytes, the other %d", got[0], got[1])
		}
	})
}

func TestABudgetIsNeverExceededByServersThatReserveAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 10)
		one, two := x.made()
		const all = 100
		var sums [2]atomic.Int64
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				for range 20 {
					list := []budget.Claim{{Key: one, Bytes: 3, All: all}, {Key: two, Bytes: 3, All: all}}
					if i%2 == 1 {
						slices.Reverse(list)
					}
					got, err := x.store.KeepBudgets(t.Context(), nil, list)
					if err != nil {
						errs[i] = err
						return
					}
					sums[0].Add(got[i%2])
					sums[1].Add(got[1-i%2])
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil || sums[0].Load() != all || sums[1].Load() != all {
			t.Errorf("%d and %d bytes of %d were reserved, %v", sums[0].Load(), sums[1].Load(), all, err)
		}
	})
}
