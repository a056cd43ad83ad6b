package sim

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// goleakFree fails t when goroutines of the fleet are left.
func goleakFree(t *testing.T) {
	t.Helper()
	if err := goleak.Find(
		goleak.IgnoreAnyFunction("muster/sim.(*serverConn).loop"),
		goleak.IgnoreAnyFunction("muster/sim.serve.func1"),
		goleak.IgnoreTopFunction("testing.(*T).Run"),
	); err != nil {
		t.Error(err)
	}
}
