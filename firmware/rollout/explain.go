package rollout

import (
	"fmt"
	"strconv"
	"time"

	"muster"
)

// Facts are what Explain must know of a device and the release. Versions are compared
// by whoever fills this in: the package knows no release.
type Facts struct {
	Gone       bool          // no such device is known
	Version    string        // that the device reports; empty when it never did
	Unknown    bool          // the release must know a version that the device never reported
	Installed  bool          // it is the release's
	Hardware   bool          // the release is for it
	NoHardware bool          // nobody has said what its hardware is, and the release is for some
	Source     bool          // the version is at or over the least that the release asks for
	Newer      bool          // the version is newer than the release's
	Missing    string        // the first product that the release needs beside its own, with the least version, that the device does not report; empty for none
	Signed     bool          // the release is signed as the server asks, and no needed key is revoked
	Withdrawn  bool          // the release is revoked
	Patching   bool          // a patch from its version to the release is being made
	Blocked    muster.Micros // until when the device is not offered anything, for its failures in other rollouts; 0 for not blocked
	Reachable  bool          // connected, or asking just now
	Local      time.Time     // the time at the device
}

// Rule is one condition of an offer.
type Rule struct {
	Name   string        `json:"name"`
	Holds  bool          `json:"holds"`
	Detail string        `json:"detail"`          // in words
	Until  muster.Micros `json:"until,omitempty"` // when it will hold by itself, if that is known
	// Excludes is the reason for which a device that breaks the rule is skipped instead of
	// waiting; empty when it waits.
	Excludes Reason `json:"-"`
	// ForAll says that no other device of the rollout is offered the release either.
	ForAll bool `json:"-"`
}

// Explain evaluates every rule of an offer, in the order in which they are looked at: the
// first that does not hold is why the device does not get the release. A device is offered
// the release if, and only if, all hold. So is told to install who is parked with the image.
func Explain(r *Rollout, d *Device, f *Facts, now muster.Micros) []Rule {
	list := make([]Rule, 0, 24)
	add := func(name string, holds bool, format string, args ...any) *Rule {
		list = append(list, Rule{Name: name, Holds: holds, Detail: fmt.Sprintf(format, args...)})
		return &list[len(list)-1]
	}
	why := string(r.Status)
	if r.Reason != "" && r.Status != Running {
		why += ": " + string(r.Reason)
	}
	if r.Reason == Regression && r.Status != Running {
		why += " (" + r.Telemetry + ")"
	}
	add("rollout_running", r.Status == Running, "the rollout is %s", why).ForAll = true
	add("not_ended", !d.State.Ended(), "the device is %s%s", d.State, because(d.Reason))
	there := add("device_there", !f.Gone, "the device is %s", either(f.Gone, "deleted", "known"))
	if d.Deleted { // else it was made by another process, and is not known in this one
		there.Excludes = Deleted
	}
	add("release_valid", !f.Withdrawn, "the release is %s", either(f.Withdrawn, "revoked", "not revoked")).ForAll = true
	add("release_signed", f.Signed, "the release is %s", either(f.Signed, "signed as it must be", "not signed by enough keys that are good")).ForAll = true
	// What the device reports may be another by the time the other rollout is through with it: it is not skipped for that before.
	add("no_other_rollout", !d.Elsewhere, "%s", either(d.Elsewhere, "another rollout is updating the device", "no other rollout is updating the device"))
	add("not_installed", !f.Installed, "the device reports %s", versionText(f.Version)).Excludes = AlreadyInstalled
	add("hardware", f.Hardware, "the release is %s", hardwareText(f)).Excludes = hardwareExcludes(f)
	add("version_known", !f.Unknown, "the device %s", either(f.Unknown, "has reported no version, and the release does not replace any", "has reported what the release must know"))
	add("source_version", f.Source, "the device's version is %s what the release can replace", either(f.Source, "among", "below")).Excludes = Ineligible
	add("depends", f.Missing == "", "the device %s", either(f.Missing == "", "reports what the release depends on", "does not report "+f.Missing+" or newer, on which the release depends"))
	add("no_downgrade", !f.Newer || r.Downgrade, "the device's version is %snewer than the release's%s", either(f.Newer, "", "not "), r.downgrades(f)).Excludes = Ineligible
	add("security_version", d.Secure <= r.Security || r.Lowers(), "the release's security version is %d, the device confirmed %d%s", r.Security, d.Secure, r.lower(d)).Excludes = Ineligible
	add("not_blocked", f.Blocked <= now, "the device %s", either(f.Blocked <= now, "has not failed too often of late in other rollouts", "failed too often of late in other rollouts")).Until = later(f.Blocked, now)
	add("attempts_left", d.Attempt < MaxAttempt || d.Parked(), "the device was offered the release %s", times(d.Attempt)).Excludes = Blocked
	add("phase_open", d.Phase <= r.Phase, "the device is in phase %s, the rollout in %s%s", r.PhaseName(d.Phase), r.PhaseName(r.Phase), r.heard()+r.vacant())
	add("not_in_flight", !d.State.InFlight() || d.Parked(), "the device is %s%s", d.State, either(d.Parked(), ", and is to install when its maintenance window is open and a slot is free", ""))
	add("retry_due", d.Retry <= now, "%s", either(d.Retry <= now, "nothing is waited for before the attempt", "the next attempt is later, after a failure")).Until = later(d.Retry, now)
	patched := !f.Patching || d.Failures > 0 || d.Parked() // who failed before gets the whole image
	add("patch_ready", patched, "%s", either(patched, "no patch for the device is waited for", "a patch from the device's version is being made"))
	hours := HoursAt(r.Plan.Windows, f.Local)
	add("window_open", hours.Open, "the maintenance window is %s", either(hours.Open, "open", "closed")).Until = at(hours.Opens)
	add("reachable", f.Reachable, "the device is %s", either(f.Reachable, "there", "not there"))
	add("slot_free", r.InFlight() < r.Plan.Concurrent, "%d of %d slots are taken", r.InFlight(), r.Plan.Concurrent).ForAll = true
	rate := r.Tokens
	add("rate", d.Parked() || rate.take(1, r.Plan.PerMinute, now) == 1, "%s", perMinute(r.Plan.PerMinute)).ForAll = true
	return list
}

// Held returns the first rule that holds an offer back; false when none does.
func Held(r *Rollout, d *Device, f *Facts, now muster.Micros) (Rule, bool) {
	return First(Explain(r, d, f, now))
}

// First returns the first rule that does not hold; false when all do.
func First(rules []Rule) (Rule, bool) {
	for _, r := range rules {
		if !r.Holds {
			return r, true
		}
	}
	return Rule{}, false
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return strconv.Itoa(n) + " times"
}

func hardwareText(f *Facts) string {
	switch {
	case f.Hardware:
		return "for the device's hardware"
	case f.NoHardware:
		return "for some hardware only, and which the device has is not known: neither a tag board nor hw.board of its twin says it"
	default:
		return "not for the device's hardware"
	}
}

// hardwareExcludes is for good only where the hardware is known: a device that was made ahead has yet to say it.
func hardwareExcludes(f *Facts) Reason {
	if f.NoHardware {
		return ""
	}
	return Ineligible
}

// PhaseName returns what a phase is called: its name, or its number from 1.
func (r *Rollout) PhaseName(i int) string {
	if i < len(r.Plan.Phases) && r.Plan.Phases[i].Name != "" {
		return r.Plan.Phases[i].Name
	}
	return fmt.Sprint(i + 1)
}

// heard is what the telemetry of the phase says, behind a semicolon.
func (r *Rollout) heard() string {
	if r.Telemetry == "" {
		return ""
	}
	return "; " + r.Telemetry
}

// vacant is that the phase waits for a device, behind a colon.
func (r *Rollout) vacant() string {
	if !r.Vacant() {
		return ""
	}
	return ": no device is in that yet, and the next begins when one has joined it and done well, or when a person lets it"
}

// downgrades says, behind a comma, what the rollout says to a device with a newer version.
func (r *Rollout) downgrades(f *Facts) string {
	if !f.Newer {
		return ""
	}
	return either(r.Downgrade, ", and the rollout is a downgrade", ", and the rollout is no downgrade")
}

// lower says, behind a semicolon, why a device may go below the security version that it confirmed, or what that needs.
func (r *Rollout) lower(d *Device) string {
	switch {
	case d.Secure <= r.Security:
		return ""
	case r.Lowers():
		return "; the rollout is a downgrade that another person has agreed to"
	default:
		return "; to go below that takes a downgrade that another person has agreed to"
	}
}

func either(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

func because(r Reason) string {
	if r == "" {
		return ""
	}
	return ": " + string(r)
}

func versionText(v string) string {
	if v == "" {
		return "no version"
	}
	return "version " + v
}

func perMinute(n int) string {
	if n <= 0 {
		return "the rate is not limited"
	}
	return fmt.Sprintf("%d offers a minute are allowed", n)
}

// later is a time to come; 0 for one that has come.
func later(t, now muster.Micros) muster.Micros {
	if t <= now {
		return 0
	}
	return t
}

func at(t time.Time) muster.Micros {
	if t.IsZero() {
		return 0
	}
	return muster.MicrosOf(t)
}
