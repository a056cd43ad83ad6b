package director_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// simulated is a device: what it does with an offer is drawn when it gets it.
type simulated struct {
	id      muster.DeviceID
	online  bool
	target  bool // it has the release
	bricked bool
	pending []rollout.Event // what it will say, one each time
	listed  bool            // among the active
	seq     int64
	attempt int
	action  int32
}

// simulation is a fleet, several coordinators on one store, and a clock that is pushed on.
type simulation struct {
	t        testing.TB
	dice     *rand.Rand
	at       time.Time
	store    *memory
	nodes    []*director.Director
	names    []string
	devices  map[muster.DeviceID]*simulated
	order    []*simulated
	active   []*simulated // that have something to say
	away     []*simulated
	bad      float64 // of updates that fail
	brick    float64
	id       string
	rows     map[muster.DeviceID]rollout.State // as the log has it
	stopped  bool                              // the rollout does not run, as of the newest commit
	logged   int
	offers   int
	takeover int
}

func (s *simulation) now() time.Time { return s.at }

// Facts implements director.Fleet.
func (s *simulation) Facts(r *rollout.Rollout, id muster.DeviceID) rollout.Facts {
	d := s.devices[id]
	return rollout.Facts{Hardware: true, Source: true, Signed: true, Installed: d.target, Reachable: d.online && !d.bricked, Local: s.at}
}

// Is implements director.Fleet.
func (*simulation) Is(_ *rollout.Rollout, version string) bool { return version == "new" }

// Version implements director.Fleet.
func (*simulation) Version(*rollout.Rollout, muster.DeviceID) string { return "" }

// Knows implements director.Fleet.
func (*simulation) Knows(string) bool { return true }

// Life implements director.Fleet.
func (s *simulation) Life(id muster.DeviceID) rollout.Life {
	d := s.devices[id]
	return rollout.Life{There: d.online && !d.bricked}
}

func newSimulation(t testing.TB, devices, nodes int, plan rollout.Plan) *simulation {
	s := &simulation{
		t: t, dice: rand.New(rand.NewPCG(7, 11)), at: time.Unix(1_800_000_000, 0), store: newMemory(), devices: map[muster.DeviceID]*simulated{}, id: "r1",
		rows: map[muster.DeviceID]rollout.State{},
	}
	var ids []muster.DeviceID
	for i := range devices {
		d := &simulated{id: muster.DeviceID(fmt.Sprintf("dev-%06d", i)), online: s.dice.Float64() > 0.05}
		s.devices[d.id], s.order, ids = d, append(s.order, d), append(ids, d.id)
		if !d.online {
			s.away = append(s.away, d)
		}
	}
	s.store.add(rollout.Rollout{ID: s.id, Number: 1, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan, PhaseAt: muster.MicrosOf(s.at)}, ids)
	s.store.log = s.check
	for i := range nodes {
		s.names = append(s.names, fmt.Sprint("node-", i))
		s.start(i)
	}
	return s
}

// start makes a coordinator, or makes it anew as after a crash.
func (s *simulation) start(i int) {
	n := director.New(s.store, s, s.now, director.Options{
		Owner: s.names[i], Told: func(_ string, changes []rollout.Change) { s.told(changes) },
	})
	if i < len(s.nodes) {
		s.takeover++
		s.names[i] += "'" // its lease is nobody's until it has passed
		s.nodes[i] = director.New(s.store, s, s.now, director.Options{
			Owner: s.names[i], Told: func(_ string, changes []rollout.Change) { s.told(changes) },
		})
		return
	}
	s.nodes = append(s.nodes, n)
}

// told sends offers. What a crash keeps from being sent is sent when the device comes next.
func (s *simulation) told(changes []rollout.Change) {
	for _, c := range changes {
		if c.Event == rollout.Offer {
			s.give(c.Device, c.Action, c.Attempt)
		}
	}
}

func (s *simulation) give(id muster.DeviceID, action int32, attempt int) {
	d := s.devices[id]
	if !d.online || d.bricked || d.attempt == attempt && d.action == action {
		return
	}
	d.action, d.attempt, d.seq = action, attempt, 0
	if !d.listed {
		d.listed = true
		s.active = append(s.active, d)
	}
	way := []rollout.Event{rollout.SaysDownloading, rollout.SaysDownloaded, rollout.SaysInstalling, rollout.SaysRebooting}
	switch x := s.dice.Float64(); {
	case x < s.brick:
		way = append(way, rollout.Silence) // and then nothing
	case x < s.brick+s.bad/2:
		way = append(way[:3], rollout.SaysFailed)
	case x < s.brick+s.bad:
		way = append(way, rollout.SeesOther)
	case x < s.brick+s.bad+0.05: // it comes back while it installs, says what it runs, and goes on
		way = append(way[:3], rollout.SeesOther, rollout.SaysRebooting, rollout.SeesTarget)
	default:
		way = append(way, rollout.SeesTarget)
	}
	d.pending = way
}

// check is called with every commit: the log, the counts and the cap are looked at in the rows.
func (s *simulation) check(r *rollout.Rollout, changes []rollout.Change) {
	for _, c := range changes {
		if c.From != s.rows[c.Device] {
			s.t.Fatalf("the log has %s %s, and then from %s to %s", c.Device, s.rows[c.Device], c.From, c.To)
		}
		if c.From.Ended() {
			s.t.Fatalf("%s left %s", c.Device, c.From)
		}
		if c.Event == rollout.Offer {
			s.offers++
			if s.stopped {
				s.t.Fatalf("%s is offered the release after the rollout stopped", c.Device)
			}
		}
		s.rows[c.Device] = c.To
		s.logged++
	}
	s.stopped = r.Status != rollout.Running
	if n := r.InFlight(); n > r.Plan.Concurrent {
		s.t.Fatalf("%d are in flight, %d are allowed", n, r.Plan.Concurrent)
	}
}

// flip has devices come and go.
func (s *simulation) flip() {
	for range len(s.order) / 2000 {
		if d := s.order[s.dice.IntN(len(s.order))]; d.online {
			d.online = false
			s.away = append(s.away, d)
		}
	}
	still := s.away[:0]
	for _, d := range s.away {
		if s.dice.Float64() > 0.02 {
			still = append(still, d)
			continue
		}
		d.online = true
		s.come(d)
	}
	s.away = still
}

// live has devices say what is next, in batches that may be repeated.
func (s *simulation) live() {
	s.flip()
	var batch []director.Report
	still := s.active[:0]
	for _, d := range s.active {
		if len(d.pending) == 0 || d.bricked {
			d.listed = false
			continue
		}
		still = append(still, d)
		if !d.online {
			continue
		}
		e := d.pending[0]
		d.pending = d.pending[1:]
		if e == rollout.Silence {
			d.bricked = true
			continue
		}
		d.target = d.target || e == rollout.SeesTarget
		d.seq++
		batch = append(batch, director.Report{Device: d.id, Fact: rollout.Fact{Event: e, Action: d.action, Attempt: d.attempt, Seq: d.seq}})
		if s.dice.Float64() < 0.01 {
			batch = append(batch, batch[len(batch)-1])
		}
	}
	s.active = still
	for i := 0; i < len(batch); i += 512 {
		part := batch[i:min(i+512, len(batch))]
		for k, err := range s.nodes[s.dice.IntN(len(s.nodes))].Reports(context.Background(), part) {
			d := s.devices[part[k].Device]
			if errors.Is(err, errCrash) && part[k].Fact.Seq == d.seq { // the device hears nothing, and says it again
				d.pending = append([]rollout.Event{part[k].Fact.Event}, d.pending...)
				d.seq--
			}
		}
	}
}

// come is a device that connects: it hears its offer again, and is due when it was asleep.
func (s *simulation) come(d *simulated) {
	row := s.store.rollouts[s.id].devices[d.id]
	if row.State.InFlight() {
		s.give(d.id, row.Action, row.Attempt)
	}
	_ = s.nodes[0].Wake(context.Background(), s.id, []muster.DeviceID{d.id}) // a crash: it comes again
}

// resend makes good what crashes lost: offers that never went out, and devices that came
// without being woken.
func (s *simulation) resend() {
	var wake []muster.DeviceID
	for _, d := range s.order {
		row := s.store.rollouts[s.id].devices[d.id]
		switch {
		case row.State == rollout.Offered && (d.attempt != row.Attempt || d.action != row.Action):
			s.give(d.id, row.Action, row.Attempt)
		case row.State == rollout.Queued && row.Due == director.Asleep && d.online && !d.bricked:
			wake = append(wake, d.id)
		}
	}
	_ = s.nodes[0].Wake(context.Background(), s.id, wake) // a crash: the next time
}

// run goes on until the rollout ends or stops, for at most so many steps of ten seconds.
func (s *simulation) run(steps int) *rollout.Rollout {
	for i := range steps {
		s.at = s.at.Add(10 * time.Second)
		for n, node := range s.nodes {
			if s.dice.Float64() < 0.02 {
				s.start(n)
				continue
			}
			if s.dice.Float64() < 0.1 {
				continue // it is stuck for a while, and may lose its lease
			}
			_ = node.Tick(context.Background()) // a crash: the next tick goes on
		}
		s.live()
		if i%60 == 0 {
			s.resend()
		}
		r := &s.store.rollouts[s.id].r
		if r.Status.Ended() && r.InFlight() == 0 || r.Status == rollout.Paused && r.InFlight() == 0 {
			return r
		}
	}
	return &s.store.rollouts[s.id].r
}

// verify looks at the rows when all is over.
func (s *simulation) verify(r *rollout.Rollout) {
	counts := make([]rollout.Counts, len(r.Plan.Phases))
	for id, d := range s.store.rollouts[s.id].devices {
		counts[d.Phase].By[d.State]++
		if d.Failing {
			counts[d.Phase].Failing++
		} else if d.State == rollout.Rebooting && d.Soaking {
			counts[d.Phase].Soaking++
		}
		if d.Late == rollout.LateInstalled && !d.State.InFlight() {
			counts[d.Phase].Late++
		}
		if d.Missed() {
			counts[d.Phase].Missed++
		}
		if d.Unfit() {
			counts[d.Phase].Unfit++
		}
		if got, ok := s.rows[id]; ok && got != d.State {
			s.t.Fatalf("the log ends with %s %s, its row has %s", id, got, d.State)
		}
		if d.State == rollout.Confirmed && !s.devices[id].target {
			s.t.Fatalf("%s is confirmed without the release", id)
		}
	}
	for i := range counts {
		if counts[i] != r.Counts[i] {
			s.t.Fatalf("phase %d counts %+v, its rows give %+v", i, r.Counts[i], counts[i])
		}
	}
}

func (s *simulation) crashes() {
	s.store.crash = func() (bool, bool) { x := s.dice.Float64(); return x < 0.01, x > 0.99 }
}

// simulatedDevices is the size of the fleet: the race detector makes everything ten times as slow.
func simulatedDevices() int {
	if raced {
		return 2000
	}
	return 100_000
}

func plan(devices int) rollout.Plan {
	p := rollout.DefaultPlan()
	p.Concurrent = devices / 50
	p.Deadlines.Offered = 2 * time.Hour
	p.Phases[0].Count = devices / 100
	p.Phases[0].Failure = rollout.Threshold{Percent: 10, MinSample: devices / 200}
	sample := max(p.Concurrent, 200) // of fewer 8 of a hundred fail by chance
	p.Phases[1].Failure = rollout.Threshold{Percent: 8, MinSample: sample}
	p.Phases[2].Failure = rollout.Threshold{Percent: 8, MinSample: sample}
	for i := range p.Phases {
		p.Phases[i].Success = 80
	}
	return p
}

func TestAGoodReleaseReachesAFleetThroughThreeCoordinatorsThatCrash(t *testing.T) {
	n := simulatedDevices()
	s := newSimulation(t, n, 3, plan(n))
	s.bad, s.brick = 0.02, 0.001
	s.crashes()
	r := s.run(6000)
	s.verify(r)
	confirmed, open := 0, 0
	for _, c := range r.Counts {
		confirmed, open = confirmed+c.By[rollout.Confirmed], open+c.Open()
	}
	t.Logf("%d devices: %d confirmed, %d open, %s %s in phase %d; %d offers, %d changes, %d transactions, %d restarts", n, confirmed, open, r.Status, r.Reason, r.Phase, s.offers, s.logged, s.store.commits, s.takeover)
	if r.Status != rollout.Completed || float64(confirmed) < 0.95*float64(n) || s.takeover == 0 {
		t.Errorf("it ends %s (%s) with %d of %d confirmed", r.Status, r.Reason, confirmed, n)
	}
}

func TestABadReleaseStopsWithinTheCanaries(t *testing.T) {
	n := simulatedDevices()
	s := newSimulation(t, n, 3, plan(n))
	s.bad, s.brick = 0.5, 0.5
	s.crashes()
	r := s.run(6000)
	s.verify(r)
	failing := 0
	for _, c := range r.Counts {
		failing += c.Failing
	}
	t.Logf("%d devices: %d were offered it, %d failed, %s %s in phase %d", n, s.offers, failing, r.Status, r.Reason, r.Phase)
	if r.Status != rollout.Paused || r.Reason != rollout.TooManyFailures || r.Phase != 0 || s.offers > n/100+r.Plan.Concurrent {
		t.Errorf("it is %s (%s) in phase %d after %d offers", r.Status, r.Reason, r.Phase, s.offers)
	}
}
