package e2e

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"muster/store/control/controltest"
)

const (
	crashDevices  = 200
	drainLimit    = 3 * time.Minute
	progressLimit = 3 * time.Minute // four stories share the machine
)

// kills is how often a crash test kills the server: usual times, in a soak 100.
func kills(usual int) int { return inSoak(100, usual) }

func inSoak(soak, usual int) int {
	if os.Getenv("MUSTER_SOAK") == "1" {
		return soak
	}
	return usual
}

// seeded returns the dice of a test, with the seed MUSTER_SEED or a new one, which
// it prints.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MUSTER_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("MUSTER_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("MUSTER_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// engine is a database to run on.
type engine struct {
	name string
	// prepare returns the server's arguments and how to read the database when the
	// server has stopped.
	prepare func(t *testing.T) (args []string, read func(m *muster) *rows)
}

func engines() []engine {
	return []engine{
		{"sqlite", func(t *testing.T) ([]string, func(*muster) *rows) {
			return nil, func(m *muster) *rows { return readSQLite(t, m.data) }
		}},
		{"timescaledb", func(t *testing.T) ([]string, func(*muster) *rows) {
			dsn := controltest.Database(t, timescale(t))
			return []string{"--database", dsn}, func(*muster) *rows { return readPostgres(t, dsn) }
		}},
	}
}

// TestAckedMeansKept kills the server again and again under load, of devices whose
// messages carry ts: every message that was acked is in the database once, and none
// is there twice.
func TestAckedMeansKept(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			crash(t, e, true, kills(6))
		})
	}
}

// TestAckedMeansStored is the same at the level stored, where an ack says more and
// every one of them must still come.
func TestAckedMeansStored(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			crash(t, e, true, kills(3), "--ack", "stored")
		})
	}
}

// TestAckedMeansKeptWithoutTimeStamps is the same with messages that carry no ts:
// every acked one is there, and again only where the device sent it again.
func TestAckedMeansKeptWithoutTimeStamps(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			crash(t, e, false, kills(5))
		})
	}
}

func crash(t *testing.T, e engine, stamped bool, kills int, more ...string) {
	dice := seeded(t)
	args, read := e.prepare(t)
	m := serveWatched(t, append(args, more...)...)
	devices := m.devices("crash", crashDevices)
	for _, p := range devices {
		p.stamped = stamped
	}
	auditor := m.audit(t)
	s := launch(t.Context(), devices)
	defer s.cancel()
	for range kills {
		m.progress(s, int64(1000+dice.IntN(5000)))
		pause(t.Context(), time.Duration(dice.IntN(150))*time.Millisecond)
		m.kill()
		m.start()
		for dice.IntN(4) == 0 { // while it starts, too
			pause(t.Context(), time.Duration(dice.IntN(600))*time.Millisecond)
			m.kill()
			m.start()
		}
		m.ready()
	}
	m.progress(s, 1000)
	if err := s.finish(); err != nil {
		t.Error(err)
	}
	last := m.drained(drainLimit)
	auditor.verdict(t, kills)
	m.stop()
	t.Logf("the last ledger: %+v", last)
	if last.rejected+last.dropped > 0 {
		t.Errorf("the server rejected %d and dropped %d messages", last.rejected, last.dropped)
	}
	if stamped && last.replaced > 0 {
		t.Errorf("%d rows were replaced; no two messages of a device have one time", last.replaced)
	}
	read(m).check(t, devices, stamped)
}

// progress waits until n more messages have been acked.
func (m *muster) progress(s *swarm, n int64) {
	m.t.Helper()
	goal := s.acks.Load() + n
	m.await(strconv.FormatInt(n, 10)+" more acks", progressLimit, func() bool { return s.acks.Load() >= goal })
}
