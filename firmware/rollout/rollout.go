package rollout

import (
	"time"

	"muster"
)

// Status is where a rollout is.
type Status string

// The statuses. Only a Draft can be edited; the last two are ends.
const (
	Draft     Status = "draft"
	Scheduled Status = "scheduled" // starts by itself at StartAt
	Running   Status = "running"
	Paused    Status = "paused"
	Completed Status = "completed"
	Aborted   Status = "aborted"
)

// Ended says whether nothing is offered any more, for good.
func (s Status) Ended() bool { return s == Completed || s == Aborted }

// Membership says whether devices that match later join.
type Membership string

// The memberships.
const (
	Snapshot Membership = "snapshot" // those that match when somebody starts it
	Dynamic  Membership = "dynamic"  // later ones too, from the phase on that it is in
)

// Reason says why a rollout is held, paused or aborted, or why a device is where it is.
type Reason string

// Reasons of rollouts.
const (
	ByOperator       Reason = "operator"
	TooManyFailures  Reason = "failure_threshold"
	TooFewSuccesses  Reason = "success_threshold"
	NothingProved    Reason = "nothing_proved" // its phase is over, no device was confirmed, and some were not to get the release
	Regression       Reason = "regression"
	ReleaseWithdrawn Reason = "release_revoked"
	ReleaseOutdated  Reason = "release_deprecated" // its time has come, and no rollout begins with its release any more
	Superseded       Reason = "superseded"
	Unapproved       Reason = "approvals" // its time has come, and too few people have agreed: it is held
)

// Reasons of devices. What a device itself gives as the reason of a failure is kept beside.
const (
	Ineligible       Reason = "ineligible"
	AlreadyInstalled Reason = "already_installed"
	Deleted          Reason = "device_deleted"
	Denied           Reason = "denied"
	Blocked          Reason = "blocked" // was offered the release too often
	Looping          Reason = "install_loop"
	DeviceError      Reason = "device_error"
	Silent           Reason = "silent"
	OldVersion       Reason = "old_version"
	Afterwards       Reason = "late" // in the log: it said so when the attempt was over, or taken back
)

// Counts are the devices of one phase by state; Failing are those of them, in whatever
// state, that failed and are not confirmed; Soaking those that have the version, and did not
// fail before; Late those that have it though the rollout is through with them unconfirmed, or took it back; Parked those of the
// downloaded that wait for their maintenance window, and take no slot.
// Of the skipped Missed are those that were to get the release and did not (denied, blocked), Unfit those that it is
// not for; the others have it already, or have nothing to do with the rollout any more.
type Counts struct {
	By      [states]int `json:"by"`
	Failing int         `json:"failing"`
	Soaking int         `json:"soaking"`
	Late    int         `json:"late,omitempty"`
	Parked  int         `json:"parked,omitempty"`
	Missed  int         `json:"missed,omitempty"`
	Unfit   int         `json:"unfit,omitempty"`
}

// Asked returns how many were to get the release: what was skipped counts neither way, unless it was missed.
func (c *Counts) Asked() int { return c.Total() - c.By[Skipped] + c.Missed }

// Total returns how many devices are in the phase.
func (c *Counts) Total() (n int) {
	for _, k := range c.By {
		n += k
	}
	return n
}

// Results returns how many have shown whether the release is good. Those that soak are among
// them: they count as good until they fail, since else failures, which are known at once,
// would be most of the first results of any release.
func (c *Counts) Results() int { return c.By[Confirmed] + c.Failing + c.Soaking }

// Open returns how many have not ended.
func (c *Counts) Open() (n int) {
	for s := Queued; s <= Rebooting; s++ {
		n += c.By[s]
	}
	return n
}

// InFlight returns how many take a slot.
func (c *Counts) InFlight() int {
	n := -c.Parked
	for s := Offered; s <= Rebooting; s++ {
		n += c.By[s]
	}
	return n
}

// Rollout is one release on its way to devices. What changes is changed by Step, Take,
// Advance and the operators' verbs, inside a store's transaction.
type Rollout struct {
	ID         string
	Number     int32 // counts rollouts, from 1; at most MaxNumber
	Name       string
	Release    string
	Product    string // that the release is of
	Security   int64  // the release's security version
	Rollback   string // release that devices had before, for a rollback; may be empty
	Query      string
	Membership Membership
	Seed       string
	Plan       Plan

	Status  Status
	Reason  Reason
	StartAt muster.Micros // of Scheduled
	Phase   int
	PhaseAt muster.Micros // when it began
	Passed  muster.Micros // when its Success was reached; 0 before
	Waiting bool          // for a person at a manual gate
	Counts  []Counts      // by phase
	Upto    []uint64      // see Plan.Place
	Tokens  Bucket
	Version int64 // counts changes

	Record
	Lease
}

// Lease says which process looks after a rollout. Every write of a coordinator names its
// Epoch, and is refused when another has taken over.
type Lease struct {
	Owner   string
	Epoch   int64
	Expires muster.Micros
}

// Bucket holds the offers that the rate allows now, in thousandths.
type Bucket struct {
	Milli int64         `json:"milli"`
	At    muster.Micros `json:"at"`
}

// burstOf is for how long a rate may be saved up.
const burstOf = 10 * time.Second

// microsPerMilli is how long a thousandth of an offer takes at one offer a minute.
const microsPerMilli = 60_000

// take takes at most n offers at perMinute, and says how many there were.
func (b *Bucket) take(n, perMinute int, now muster.Micros) int {
	if perMinute <= 0 {
		return n
	}
	full := max(1000, int64(perMinute)*1000*int64(burstOf/time.Second)/60)
	if b.At == 0 {
		b.Milli, b.At = full, now
	}
	// Nothing takes longer to be full than an offer a minute does.
	elapsed := int64(min(max(now-b.At, 0), micros(time.Minute))) * int64(perMinute)
	if gained := elapsed / microsPerMilli; gained > 0 || now < b.At { // else what has passed counts later
		b.Milli += gained
		b.At = now - muster.Micros(elapsed%microsPerMilli/int64(perMinute))
	}
	b.Milli = min(full, b.Milli)
	n = min(n, int(b.Milli/1000))
	b.Milli -= int64(n) * 1000
	return n
}

// InFlight returns how many devices take a slot, in all phases.
func (r *Rollout) InFlight() (n int) {
	for i := range r.Counts {
		n += r.Counts[i].InFlight()
	}
	return n
}

// Device is one device in a rollout.
type Device struct {
	Rollout string
	ID      muster.DeviceID
	Rank    uint64
	Phase   int

	State    State
	Reason   Reason
	Detail   string        // what the device said of a failure: at most MaxDetail bytes
	Action   int32         // numbers what was offered, for all doors, once for the device; 0 before the first offer
	Attempt  int           // 1 for the first; at most MaxAttempt
	Failures int           // attempts that failed
	Seq      int64         // of the device's newest report in this attempt
	Failing  bool          // failed, and not confirmed since
	Repeats  int           // how often it began again in this attempt
	Progress int           // percent, the most that it said of this download
	From     string        // version it had when it was offered
	Due      muster.Micros // when a device that waits is looked at next: queued, or parked
	Retry    muster.Micros // before which there is no attempt, after one that failed; 0 for at once
	Deadline muster.Micros // when silence ends the attempt, or when the soak is over; 0 for never, AtWindow while it is parked
	Soaking  bool          // it has the version
	Soaked   muster.Micros // when the soak of a device was over that is waited for: see Sleeps; 0 for none
	Late     Late          // what it did when the attempt was over, or taken back; installed too when that was while it soaked
	Updated  muster.Micros

	// What the store says of a device that is due, as of the same transaction.
	Elsewhere bool  // another rollout has it in flight
	Deleted   bool  // there is no such device any more
	Secure    int64 // highest security version of the product that it confirmed; 0 for none
}

// Updating says whether the device is at work on the release: it took the offer, and the attempt is not over. Who waits
// with the image for its window is not.
func (d *Device) Updating() bool { return d.State.InFlight() && d.State != Offered && !d.Parked() }

// MaxDetail bounds Device.Detail.
const MaxDetail = 512

// MaxAttempt bounds the attempts of a device, those that were recalled among them, and
// MaxNumber the rollouts that there ever are: both are in the 31 bits of an action, which the
// clients of hawkBit's DDI read as a C int.
const (
	MaxAttempt = 255
	MaxNumber  = 1<<23 - 1
)

// actionOf returns the number of an attempt.
func (r *Rollout) actionOf(attempt int) int32 { return r.Number<<8 | int32(attempt&MaxAttempt) }

// mostRepeats is how often a device may begin again within an attempt: a power cut or two,
// never an endless loop of installing (hawkbit issues 866 and 1190).
const mostRepeats = 3
