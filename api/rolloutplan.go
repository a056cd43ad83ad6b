package api

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"muster"
	"muster/firmware/regression"
	"muster/firmware/rollout"
)

type rolloutWindow struct {
	Days []string `json:"days,omitempty" maxItems:"7" nullable:"false" enum:"mon,tue,wed,thu,fri,sat,sun" doc:"On which from lies; every day when absent"`
	From string   `json:"from" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" patternDescription:"a time of day" example:"22:00"`
	To   string   `json:"to" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" patternDescription:"a time of day" example:"04:00" doc:"On the next day when it is not after from"`
}

type rolloutThreshold struct {
	Absolute  int     `json:"absolute,omitempty" minimum:"0" maximum:"1000000" doc:"So many devices; 0 for none"`
	Percent   float64 `json:"percent,omitempty" minimum:"0" maximum:"100" doc:"Of the devices that have shown whether the release is good; 0 for none"`
	MinSample int     `json:"min_sample,omitempty" minimum:"0" maximum:"1000000" doc:"From so many results on percent counts: failures are known before successes, so that it is to be near concurrent"`
}

// rolloutRegression is what the telemetry of a phase is asked.
type rolloutRegression struct {
	Key        string   `json:"key" minLength:"1" maxLength:"256" doc:"Of telemetry; values that are no numbers do not count"`
	Aggregate  string   `json:"aggregate,omitempty" enum:"avg,min,max,p95" doc:"What one number the readings of a device are; avg when absent"`
	Worse      string   `json:"worse" enum:"up,down" doc:"Where a value goes when it gets worse"`
	Percent    *float64 `json:"percent,omitempty" minimum:"0" maximum:"1000000" nullable:"false" doc:"Of the mean of the others, by which that of updated devices may be worse; 10 when absent"`
	WindowS    int64    `json:"window_s,omitempty" minimum:"10" maximum:"86400" doc:"Seconds that readings count for; of updated devices those since they have the version. 3600 when absent"`
	MinDevices int      `json:"min_devices,omitempty" minimum:"1" maximum:"200" doc:"Devices that must have readings, updated ones and others each, before anything is said; 3 when absent"`
}

type rolloutPhase struct {
	Name    string           `json:"name,omitempty" maxLength:"64"`
	Percent float64          `json:"percent,omitempty" minimum:"0" maximum:"100" doc:"Of all devices, with those of the phases before, and of a snapshot one at least; or"`
	Count   int              `json:"count,omitempty" minimum:"0" maximum:"1000000" doc:"so many devices; or"`
	Q       string           `json:"q,omitempty" maxLength:"2048" doc:"those that match: canaries"`
	Success *float64         `json:"success,omitempty" minimum:"0" maximum:"100" nullable:"false" doc:"Percent of its devices that must be confirmed, without those that were skipped and were not to get the release; 90 when absent"`
	Failure rolloutThreshold `json:"failure,omitzero" required:"false" doc:"What stops the rollout; nothing when absent"`
	SoakS   int64            `json:"soak_s,omitempty" minimum:"0" maximum:"2592000" doc:"Seconds from when success is reached to the next phase"`
	Gate    string           `json:"gate,omitempty" enum:"auto,manual" doc:"manual: a person lets the next phase begin; auto when absent"`

	Regression *rolloutRegression `json:"regression,omitempty" doc:"Telemetry that must not get worse: the next phase waits until enough of it is known, and the rollout is paused when it is worse. Nothing when absent"`
}

type rolloutDeadlines struct {
	OfferedS     *int64 `json:"offered_s,omitempty" minimum:"1" maximum:"2592000" nullable:"false" doc:"86400 when absent"`
	DownloadingS *int64 `json:"downloading_s,omitempty" minimum:"1" maximum:"2592000" nullable:"false" doc:"Without a higher percent, and in all for a device that reports none; 7200 when absent"`
	InstallingS  *int64 `json:"installing_s,omitempty" minimum:"1" maximum:"2592000" nullable:"false" doc:"1800 when absent"`
	RebootingS   *int64 `json:"rebooting_s,omitempty" minimum:"1" maximum:"2592000" nullable:"false" doc:"900 when absent"`
}

// rolloutPlan is a plan as it is written, whole or in part, and shown.
type rolloutPlan struct {
	Phases     []rolloutPhase    `json:"phases,omitempty" minItems:"1" maxItems:"32" nullable:"false" doc:"The last has 100 percent. When absent: 10 canaries, a tenth, all"`
	Concurrent *int              `json:"concurrent,omitempty" minimum:"1" maximum:"1000000" nullable:"false" doc:"Devices in flight at a time, at most; 100 when absent"`
	PerMinute  *int              `json:"per_minute,omitempty" minimum:"0" maximum:"1000000" nullable:"false" doc:"Offers a minute, at most; 0 and absent for no limit"`
	Windows    *[]rolloutWindow  `json:"windows,omitempty" maxItems:"64" nullable:"false" doc:"In which devices are offered the release, in the zone of each (tag tz); always when empty"`
	Zone       *string           `json:"zone,omitempty" maxLength:"64" nullable:"false" doc:"IANA zone of devices that have none; UTC when absent" example:"Europe/Berlin"`
	Deadlines  *rolloutDeadlines `json:"deadlines,omitempty" doc:"Seconds that a device may be in a state, after which it has failed; what it repeats gives it no more"`
	Attempts   *int              `json:"attempts,omitempty" minimum:"1" maximum:"10" nullable:"false" doc:"Of each device; 3 when absent"`
	RetryS     *int64            `json:"retry_s,omitempty" minimum:"0" maximum:"2592000" nullable:"false" doc:"Seconds before the second attempt, twice that before the third and so on; 300 when absent"`
	SoakS      *int64            `json:"soak_s,omitempty" minimum:"0" maximum:"2592000" nullable:"false" doc:"Seconds for which a device has the version, and is well, before it is confirmed; 60 when absent"`
	OnFailure  *string           `json:"on_failure,omitempty" enum:"pause,abort" nullable:"false" doc:"What a failure threshold does; pause when absent"`
}

func weekdays() []string { return []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} }

func planOf(p *rollout.Plan) rolloutPlan {
	windows := make([]rolloutWindow, len(p.Windows))
	for i, w := range p.Windows {
		windows[i] = rolloutWindow{From: clockText(w.From), To: clockText(w.To)}
		for _, day := range w.Days {
			windows[i].Days = append(windows[i].Days, weekdays()[day])
		}
	}
	d, s := p.Deadlines, secondsOf
	onFailure := string(p.OnFailure)
	out := rolloutPlan{
		Phases: make([]rolloutPhase, len(p.Phases)), Concurrent: &p.Concurrent, PerMinute: &p.PerMinute, Windows: &windows, Zone: &p.Zone,
		Deadlines: &rolloutDeadlines{s(d.Offered), s(d.Downloading), s(d.Installing), s(d.Rebooting)},
		Attempts:  &p.Attempts, RetryS: s(p.RetryAfter), SoakS: s(p.Soak), OnFailure: &onFailure,
	}
	for i := range p.Phases {
		ph := &p.Phases[i]
		out.Phases[i] = rolloutPhase{
			ph.Name, ph.Percent, ph.Count, ph.Query, &ph.Success, rolloutThreshold(ph.Failure), int64(ph.Soak / time.Second), string(ph.Gate), regressionOf(&ph.Regression),
		}
	}
	return out
}

func regressionOf(g *regression.Gate) *rolloutRegression {
	if !g.Asked() {
		return nil
	}
	return &rolloutRegression{g.Key, string(g.Aggregate), string(g.Worse), &g.Percent, int64(g.Window / time.Second), g.Devices}
}

// read is the gate that is written; none of nil.
func (g *rolloutRegression) read() regression.Gate {
	if g == nil {
		return regression.Gate{}
	}
	out := regression.Gate{
		Key: g.Key, Aggregate: cmp.Or(regression.Aggregate(g.Aggregate), regression.Avg), Worse: regression.Direction(g.Worse), Percent: 10,
		Window: cmp.Or(time.Duration(g.WindowS)*time.Second, time.Hour), Devices: cmp.Or(g.MinDevices, 3),
	}
	put(&out.Percent, g.Percent)
	return out
}

func secondsOf(d time.Duration) *int64 {
	s := int64(d / time.Second)
	return &s
}

func clockText(c rollout.Clock) string { return fmt.Sprintf("%02d:%02d", c/60, c%60) }

// change returns what puts the members that are given into a plan. Invalid for a window that
// is none.
func (p *rolloutPlan) change() (func(*rollout.Plan), error) {
	var windows []rollout.Window
	if p.Windows != nil {
		for i, w := range *p.Windows {
			read, err := w.read()
			if err != nil {
				return nil, muster.At(err, fmt.Sprintf("plan/windows/%d", i))
			}
			windows = append(windows, read)
		}
	}
	var phases []rollout.Phase
	for i := range p.Phases {
		phases = append(phases, p.Phases[i].read())
	}
	return func(to *rollout.Plan) {
		if phases != nil {
			to.Phases = slices.Clone(phases)
		}
		if p.Windows != nil {
			to.Windows = slices.Clone(windows)
		}
		if p.OnFailure != nil {
			to.OnFailure = rollout.Outcome(*p.OnFailure)
		}
		put(&to.Concurrent, p.Concurrent)
		put(&to.PerMinute, p.PerMinute)
		put(&to.Zone, p.Zone)
		put(&to.Attempts, p.Attempts)
		putSeconds(&to.RetryAfter, p.RetryS)
		putSeconds(&to.Soak, p.SoakS)
		if d := p.Deadlines; d != nil {
			putSeconds(&to.Deadlines.Offered, d.OfferedS)
			putSeconds(&to.Deadlines.Downloading, d.DownloadingS)
			putSeconds(&to.Deadlines.Installing, d.InstallingS)
			putSeconds(&to.Deadlines.Rebooting, d.RebootingS)
		}
	}, nil
}

func put[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func putSeconds(to *time.Duration, from *int64) {
	if from != nil {
		*to = time.Duration(*from) * time.Second
	}
}

func (ph *rolloutPhase) read() rollout.Phase {
	out := rollout.Phase{
		Name: ph.Name, Percent: ph.Percent, Count: ph.Count, Query: ph.Q, Success: 90, Failure: rollout.Threshold(ph.Failure),
		Soak: time.Duration(ph.SoakS) * time.Second, Gate: rollout.Auto, Regression: ph.Regression.read(),
	}
	put(&out.Success, ph.Success)
	if ph.Gate != "" {
		out.Gate = rollout.Gate(ph.Gate)
	}
	return out
}

func (w *rolloutWindow) read() (out rollout.Window, err error) {
	if out.From, err = parseClock(w.From); err != nil {
		return out, muster.At(err, "from")
	}
	if out.To, err = parseClock(w.To); err != nil {
		return out, muster.At(err, "to")
	}
	for _, day := range w.Days {
		out.Days = append(out.Days, time.Weekday(slices.Index(weekdays(), day)))
	}
	return out, nil
}

func parseClock(text string) (rollout.Clock, error) {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, muster.Errorf(muster.Invalid, "%.16q is no time of day, such as 22:00", text)
	}
	return rollout.Clock(t.Hour()*60 + t.Minute()), nil
}
