package director

import (
	"time"

	"muster"
	"muster/firmware/rollout"
)

// settle is for how long who has the whole image outside of its maintenance window keeps its slot: clients that know
// nothing of windows say at once that they install.
const settle = muster.Micros(5 * time.Second / time.Microsecond)

// unanswered ends what a device that does not install yet did not go on with by its deadline, unless it is its
// maintenance window that has it wait. Outside of that who has the image is parked with it; an offer that nobody took
// up and a download that stands still are taken back, which is no failure, and made again when it opens.
func (d *Director) unanswered(r *rollout.Rollout, dev *rollout.Device, now muster.Micros, changes []rollout.Change) []rollout.Change {
	local := d.fleet.Facts(r, dev.ID).Local
	hours := rollout.HoursAt(r.Plan.Windows, local)
	full := dev.Updated + micros(r.Plan.Deadlines.Offered)
	taken := dev.State > rollout.Offered
	switch {
	case !hours.Open && dev.State == rollout.Downloaded:
		return wait(r, dev, rollout.Park, &hours, now, changes)
	case !hours.Open && !taken && now < full:
		return wait(r, dev, rollout.Recall, &hours, now, changes)
	case d.away(dev, now):
		dev.Deadline = now + lookAgain
	case !hours.Open && taken:
		return wait(r, dev, rollout.Recall, &hours, now, changes)
	case !taken && now < full:
		dev.Deadline = byClosing(full, &hours)
	case taken && waited(r, dev, local.Location()):
		dev.Deadline = now + micros(r.Plan.Deadlines.Of(dev.State))
		d.bound(r, dev, now)
	default:
		return step(r, dev, rollout.Fact{Event: rollout.Silence}, now, changes)
	}
	return changes
}

// wait has a device wait until its maintenance window opens.
func wait(r *rollout.Rollout, dev *rollout.Device, e rollout.Event, hours *rollout.Hours, now muster.Micros, changes []rollout.Change) []rollout.Change {
	changes = step(r, dev, rollout.Fact{Event: e}, now, changes)
	if dev.Due = Asleep; !hours.Opens.IsZero() {
		dev.Due = muster.MicrosOf(hours.Opens)
	}
	return changes
}

// unpark gives a device that waits with the image a slot, and the time to install.
func unpark(r *rollout.Rollout, dev *rollout.Device, local time.Time, now muster.Micros, changes []rollout.Change) []rollout.Change {
	changes = step(r, dev, rollout.Fact{Event: rollout.Unpark}, now, changes)
	hours := rollout.HoursAt(r.Plan.Windows, local)
	dev.Deadline = byClosing(dev.Deadline, &hours)
	return changes
}

// waited says whether the maintenance window was closed when a device's time began, or at its end, as far as
// that is known: it is given all of it.
func waited(r *rollout.Rollout, dev *rollout.Device, zone *time.Location) bool {
	if dev.Deadline == rollout.Relook {
		return true
	}
	end := dev.Deadline.Time().In(zone)
	for _, t := range []time.Time{end, end.Add(-r.Plan.Deadlines.Of(dev.State))} {
		if hours := rollout.HoursAt(r.Plan.Windows, t); !hours.Open {
			return true
		}
	}
	return false
}

// bound ends the time of who has the image when its maintenance window closes: it is parked then.
func (d *Director) bound(r *rollout.Rollout, dev *rollout.Device, now muster.Micros) {
	if dev.State != rollout.Downloaded || dev.Parked() || len(r.Plan.Windows) == 0 {
		return
	}
	hours := rollout.HoursAt(r.Plan.Windows, d.fleet.Facts(r, dev.ID).Local)
	if dev.Deadline = byClosing(dev.Deadline, &hours); !hours.Open {
		dev.Deadline = min(dev.Deadline, now+settle)
	}
}

// byClosing returns a deadline, or when the window closes before that.
func byClosing(deadline muster.Micros, hours *rollout.Hours) muster.Micros {
	if hours.Closes.IsZero() {
		return deadline
	}
	return min(deadline, muster.MicrosOf(hours.Closes))
}

func micros(d time.Duration) muster.Micros { return muster.Micros(d / time.Microsecond) }
