package rollout

import (
	"fmt"
	"time"

	"muster"
)

// The bounds of a plan.
const (
	MaxPhases     = 32
	MaxConcurrent = 1_000_000
	MaxPerMinute  = 1_000_000
	MaxWindows    = 64
	MaxAttempts   = 10
	MaxTime       = 30 * 24 * time.Hour // of deadlines, soaks and retries
	MaxPhaseName  = 64                  // bytes
	MaxQuery      = 2048                // bytes
)

// Check says what of a plan is wrong, as Invalid with the place: "plan/phases/0/percent". query
// says what is wrong with the query of a phase.
func (p *Plan) Check(query func(string) error) error {
	if n := len(p.Phases); n < 1 || n > MaxPhases {
		return muster.InvalidAt("plan/phases", "a plan has 1 to %d phases, this one has %d", MaxPhases, n)
	}
	percent := 0.0
	for i := range p.Phases {
		if err := p.Phases[i].check(fmt.Sprintf("plan/phases/%d", i), percent, query); err != nil {
			return err
		}
		percent = max(percent, p.Phases[i].Percent)
	}
	if last := len(p.Phases) - 1; p.Phases[last].Percent != 100 {
		return muster.InvalidAt(fmt.Sprintf("plan/phases/%d/percent", last), "the last phase has 100 percent: all devices that are in none before")
	}
	if p.OnFailure != Pauses && p.OnFailure != Aborts {
		return muster.InvalidAt("plan/on_failure", "on_failure is %s or %s", Pauses, Aborts)
	}
	if _, err := time.LoadLocation(p.Zone); err != nil || p.Zone == "Local" {
		return muster.InvalidAt("plan/zone", "zone is the name of an IANA time zone, such as Europe/Berlin")
	}
	if err := checkWindows(p.Windows); err != nil {
		return err
	}
	return p.checkNumbers()
}

func (p *Plan) checkNumbers() error {
	for _, n := range []struct {
		at         string
		is         int
		least, max int
	}{
		{"concurrent", p.Concurrent, 1, MaxConcurrent},
		{"per_minute", p.PerMinute, 0, MaxPerMinute},
		{"attempts", p.Attempts, 1, MaxAttempts},
	} {
		if n.is < n.least || n.is > n.max {
			return muster.InvalidAt("plan/"+n.at, "%s is %d to %d", n.at, n.least, n.max)
		}
	}
	for _, d := range []struct {
		at    string
		is    time.Duration
		least time.Duration
	}{
		{"deadlines/offered_s", p.Deadlines.Offered, time.Second},
		{"deadlines/downloading_s", p.Deadlines.Downloading, time.Second},
		{"deadlines/installing_s", p.Deadlines.Installing, time.Second},
		{"deadlines/rebooting_s", p.Deadlines.Rebooting, time.Second},
		{"retry_s", p.RetryAfter, 0},
		{"soak_s", p.Soak, 0},
	} {
		if d.is < d.least || d.is > MaxTime {
			return muster.InvalidAt("plan/"+d.at, "%s is %d to %d seconds", d.at, d.least/time.Second, MaxTime/time.Second)
		}
	}
	return nil
}

// checkWindows says what of maintenance windows is wrong.
func checkWindows(windows []Window) error {
	if len(windows) > MaxWindows {
		return muster.InvalidAt("plan/windows", "a plan has at most %d windows", MaxWindows)
	}
	for i, w := range windows {
		at := fmt.Sprintf("plan/windows/%d", i)
		if w.From < 0 || w.From >= 24*60 || w.To < 0 || w.To >= 24*60 {
			return muster.InvalidAt(at, "a window is from and to a time of day, 00:00 to 23:59")
		}
		for _, day := range w.Days {
			if day < time.Sunday || day > time.Saturday {
				return muster.InvalidAt(at+"/days", "there is no such day of the week")
			}
		}
	}
	return nil
}

// check is Plan.Check for a phase, which comes behind phases that have percent of all devices.
func (ph *Phase) check(at string, percent float64, query func(string) error) error {
	kinds := 0
	for _, given := range []bool{ph.Percent != 0, ph.Count != 0, ph.Query != ""} {
		if given {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return muster.InvalidAt(at, "a phase has one of percent, count and query")
	case len(ph.Name) > MaxPhaseName:
		return muster.InvalidAt(at+"/name", "a name has at most %d bytes", MaxPhaseName)
	case ph.Count < 0 || ph.Count > MaxConcurrent:
		return muster.InvalidAt(at+"/count", "count is 1 to %d", MaxConcurrent)
	case ph.Percent != 0 && !(ph.Percent > percent && ph.Percent <= 100): // NaN is neither
		return muster.InvalidAt(at+"/percent", "percent is of all devices with those of the phases before: it ascends to 100")
	case len(ph.Query) > MaxQuery:
		return muster.InvalidAt(at+"/q", "a query has at most %d bytes", MaxQuery)
	case !(ph.Success >= 0 && ph.Success <= 100):
		return muster.InvalidAt(at+"/success", "success is 0 to 100 percent")
	case ph.Soak < 0 || ph.Soak > MaxTime:
		return muster.InvalidAt(at+"/soak_s", "soak_s is 0 to %d seconds", MaxTime/time.Second)
	case ph.Gate != Auto && ph.Gate != Manual:
		return muster.InvalidAt(at+"/gate", "gate is %s or %s", Auto, Manual)
	}
	if ph.Query != "" {
		if err := query(ph.Query); err != nil {
			return muster.At(err, at+"/q")
		}
	}
	if err := ph.Regression.Check(at + "/regression"); err != nil {
		return err //nolint:wrapcheck // it names the place
	}
	return ph.Failure.check(at + "/failure")
}

func (t Threshold) check(at string) error {
	switch {
	case t.Absolute < 0 || t.Absolute > MaxConcurrent:
		return muster.InvalidAt(at+"/absolute", "absolute is 0 to %d", MaxConcurrent)
	case !(t.Percent >= 0 && t.Percent <= 100):
		return muster.InvalidAt(at+"/percent", "percent is 0 to 100")
	case t.MinSample < 0 || t.MinSample > MaxConcurrent:
		return muster.InvalidAt(at+"/min_sample", "min_sample is 0 to %d", MaxConcurrent)
	}
	return nil
}
