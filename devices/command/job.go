package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"muster"
)

const (
	// MaxJobs is how many jobs may be running or paused at a time.
	MaxJobs = 16
	// maxUnfinished bounds those too that were aborted and wait for devices that have
	// a command of theirs.
	maxUnfinished = 256
	// MaxTargets is how many devices a job has at most.
	MaxTargets = 1_000_000
	// MaxWaves is how many waves a job has at most.
	MaxWaves = 100
	// MaxRate is the highest rate, in targets a minute.
	MaxRate = 600_000
	// MaxNamed is how many devices a job is given by their ids at most.
	MaxNamed = 1000
	// MaxQuery is the longest query, in bytes.
	MaxQuery = 2048
	// KeepJobs is how many finished jobs are kept: the newest.
	KeepJobs = 1000
	// KeepJobsFor is how long a finished job is kept at most. It is longer than KeepFor:
	// a job's commands have their text in it.
	KeepJobsFor = 90 * 24 * time.Hour
)

// Kind is what a job does with its targets.
type Kind string

// The kinds of job.
const (
	KindCommand Kind = "command" // sends each a command
	KindDesired Kind = "desired" // patches what each is wanted to be
)

// Phase is where a job stands.
type Phase string

// The phases of a job. Done and Aborted are final, though the last commands of an
// aborted job may not be.
const (
	Running Phase = "running"
	Paused  Phase = "paused"  // starts nothing; what it started goes on
	Aborted Phase = "aborted" // its queued commands are cancelled
	Done    Phase = "done"
)

// Wave is a part of a job's targets: so many percent of all, rounded up, or so many.
type Wave struct {
	Percent int `json:"percent,omitempty"`
	Count   int `json:"count,omitempty"`
}

// Abort says when a job aborts itself: when at least MinFinished targets are finished
// and FailedPercent of them or more failed or expired. Zero for never.
type Abort struct {
	FailedPercent int
	MinFinished   int
}

// JobSpec is a job to be made.
type JobSpec struct {
	Query       string            // which devices, or
	Devices     []muster.DeviceID // these, each of which there is
	Kind        Kind
	Method      string          // of KindCommand
	Params      json.RawMessage // of KindCommand
	TTL         time.Duration   // of each command, from when it is made; 0 for DefaultTTL
	Patch       json.RawMessage // of KindDesired: a merge patch (RFC 7396)
	Waves       []Wave          // none for one; what they leave is one more
	Rate        int             // targets a minute, 0 for no limit
	MaxInFlight int             // targets started and not final, 0 for no limit
	Abort       Abort
	By          string
	Key         string // idempotency key
}

// Job is a job and how far it is.
type Job struct {
	ID          int64
	Query       string // empty when its devices were named
	Kind        Kind
	Method      string
	Params      json.RawMessage // of the commands
	TTL         time.Duration
	Patch       json.RawMessage
	Ends        []int64 // of each wave: the number of the target after its last
	Rate        int
	MaxInFlight int
	Abort       Abort
	CreatedBy   string
	Created     muster.Micros
	Total       int64
	Key, Hash   string // of the idempotency key and of the body
	JobState
}

// JobState is the part of a job that changes.
type JobState struct {
	ID                                    int64
	Phase                                 Phase
	Reason                                string // why it aborted
	Wave                                  int    // how many waves are open, from 1
	Next                                  int64  // the number of the first target that was not started
	Succeeded, Failed, Expired, Cancelled int64
	LastStart                             muster.Micros
	Ended                                 muster.Micros // when it was done or aborted, 0 before
	Settled                               bool          // nothing of it is unfinished
}

// final is how many targets are final of those that were started.
func (s *JobState) final() int64 { return s.Succeeded + s.Failed + s.Expired + s.Cancelled }

// InFlight is how many targets were started and are not final.
func (s *JobState) InFlight() int64 { return s.Next - s.final() }

// Target is one device of a job.
type Target struct {
	Job     int64
	Number  int64 // from 0, in the order in which they are started
	Device  muster.DeviceID
	Command int64 // 0 for none
	// State is pending, running, or the final state of its command. Running may also be
	// told as the state of the command.
	State string
	Error string // why it failed without a command
}

// States of a target that are none of a command.
const (
	TargetPending = "pending"
	TargetRunning = "running"
)

// TargetQuery asks for a page of a job's targets.
type TargetQuery struct {
	Job   int64
	State string // pending, running, or a final state; empty for all
	From  int64  // the first number
	Limit int
}

func (s *JobSpec) check() error {
	if err := s.checkTargets(); err != nil {
		return err
	}
	if err := s.checkPace(); err != nil {
		return err
	}
	c := Spec{Method: s.Method, Params: s.Params, TTL: s.TTL, Key: s.Key}
	switch s.Kind {
	case KindCommand:
		if len(s.Patch) > 0 {
			return muster.InvalidAt("patch", "a job of commands has no patch")
		}
		if err := c.check(); err != nil {
			return err
		}
		s.Params, s.TTL = c.Params, c.TTL
		return nil
	case KindDesired:
		if s.Method != "" || len(s.Params) > 0 || s.TTL != 0 {
			return muster.At(muster.Errorf(muster.Invalid, "a job of kind desired has a patch, and no method, params or ttl_s"), "kind", "method", "params", "ttl_s")
		}
		return s.checkPatch()
	default:
		return muster.InvalidAt("kind", "kind is %s or %s", KindCommand, KindDesired)
	}
}

func (s *JobSpec) checkTargets() error {
	switch {
	case s.Query != "" && len(s.Devices) > 0:
		return muster.At(muster.Errorf(muster.Invalid, "give either q or ids"), "q", "ids")
	case len(s.Devices) > MaxNamed:
		return muster.InvalidAt("ids", "a job is given at most %d ids", MaxNamed)
	case len(s.Devices) == 0 && (s.Query == "" || len(s.Query) > MaxQuery || !utf8.ValidString(s.Query)):
		return muster.InvalidAt("q", "a job has ids, or a query of at most %d bytes of UTF-8; id:* is all devices", MaxQuery)
	}
	return nil
}

func (s *JobSpec) checkPatch() (err error) {
	if s.Patch, err = compact("patch", s.Patch); err != nil {
		return err
	}
	if !bytes.HasPrefix(s.Patch, []byte("{")) {
		return muster.InvalidAt("patch", "patch is a JSON object")
	}
	return nil
}

func (s *JobSpec) checkPace() error {
	switch {
	case len(s.Key) > MaxKey:
		return muster.Errorf(muster.Invalid, "the Idempotency-Key has %d bytes, at most %d are allowed", len(s.Key), MaxKey)
	case s.Rate < 0 || s.Rate > MaxRate:
		return muster.InvalidAt("rate_per_minute", "rate_per_minute is 0 to %d", MaxRate)
	case s.MaxInFlight < 0 || s.MaxInFlight > MaxTargets:
		return muster.InvalidAt("max_in_flight", "max_in_flight is 0 to %d", MaxTargets)
	case s.Abort.FailedPercent < 0 || s.Abort.FailedPercent > 100 || s.Abort.MinFinished < 0 || s.Abort.MinFinished > MaxTargets:
		return muster.Errorf(muster.Invalid, "failed_percent is 0 to 100 and min_finished 0 to %d", MaxTargets)
	case len(s.Waves) > MaxWaves:
		return muster.InvalidAt("waves", "a job has at most %d waves", MaxWaves)
	}
	for i, w := range s.Waves {
		if (w.Percent == 0) == (w.Count == 0) || w.Percent < 0 || w.Percent > 100 || w.Count < 0 || w.Count > MaxTargets {
			return muster.InvalidAt(fmt.Sprintf("waves/%d", i), "a wave has a percent of 1 to 100, or a count of 1 to %d", MaxTargets)
		}
	}
	return nil
}

// ends returns where each wave ends among total targets. What the waves leave is one
// more; those that begin behind the last target are none.
func ends(waves []Wave, total int64) []int64 {
	var out []int64
	at := int64(0)
	for _, w := range waves {
		n := int64(w.Count)
		if w.Percent > 0 {
			n = (total*int64(w.Percent) + 99) / 100
		}
		if at = min(at+n, total); len(out) > 0 && out[len(out)-1] == at {
			break
		}
		out = append(out, at)
	}
	if len(out) == 0 || at < total {
		out = append(out, total)
	}
	return out
}

func (s *JobSpec) bodyHash() string {
	parts := append(make([]string, 0, 10+2*len(s.Waves)),
		s.Query, string(s.Kind), s.Method, string(s.Params), s.TTL.String(), string(s.Patch), strconv.Itoa(s.Rate),
		strconv.Itoa(s.MaxInFlight), strconv.Itoa(s.Abort.FailedPercent), strconv.Itoa(s.Abort.MinFinished),
	)
	for _, w := range s.Waves {
		parts = append(parts, strconv.Itoa(w.Percent), strconv.Itoa(w.Count))
	}
	for _, id := range s.Devices {
		parts = append(parts, "id "+string(id)) // which no number of a wave is
	}
	return hashOf(parts...)
}

// pace spreads starts evenly over time: in any stretch of t minutes at most rate x t
// targets, and a tenth of a second's more.
type pace struct {
	rate  int64 // a minute, 0 for no limit
	from  muster.Micros
	taken int64 // since from
}

const minute = muster.Micros(60_000_000)

// newPace goes on from the last start of a job, so that a restart gives nothing away.
func newPace(rate int, last, now muster.Micros) pace {
	p := pace{rate: int64(rate), from: now, taken: -1} // the first at once
	if p.rate > 0 && last > 0 && last+minute/muster.Micros(p.rate) > now {
		p.from, p.taken = min(last, now), 0
	}
	return p
}

// allowed is how many may start now.
func (p *pace) allowed(now muster.Micros) int64 {
	if p.rate == 0 {
		return math.MaxInt64
	}
	if now < p.from { // the clock was set back
		p.from = now
	}
	if now > p.from {
		minutes := (now - p.from) / minute
		p.from += minutes * minute
		p.taken -= int64(minutes) * p.rate
	}
	due := int64(now-p.from) * p.rate / int64(minute)
	p.taken = max(p.taken, due-max(1, p.rate/600))
	return max(due-p.taken, 0)
}

func (p *pace) take(n int64) { p.taken += n }

// next is when one more may start.
func (p *pace) next() muster.Micros {
	return p.from + muster.Micros(((p.taken+1)*int64(minute)+p.rate-1)/p.rate)
}
