package rollout

import (
	"slices"
	"strconv"
	"strings"

	"muster"
)

// Person is who does something to a rollout.
type Person struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // as people know it at the time
}

// userPrefix is what the ids of users begin with.
const userPrefix = "usr_"

// Known says whether it is known which person that is: a user, or who owns the key. Of a key that nobody owns it
// is not.
func (p Person) Known() bool { return strings.HasPrefix(p.ID, userPrefix) }

// written says whether it is known by whom a rollout was made, and written last.
func (r *Rollout) written() bool {
	return r.CreatedBy.Known() && (r.EditedBy.ID == "" || r.EditedBy.Known())
}

// Approval is a second person's yes to a draft.
type Approval struct {
	By   Person        `json:"by"`
	At   muster.Micros `json:"at"`
	Note string        `json:"note,omitempty"`
}

// MaxApprovals is how many people may agree to a rollout.
const MaxApprovals = 16

// Quorum is what a rollout needs of people before it begins. The zero Quorum asks for what the rollout says
// alone, and counts everybody.
type Quorum struct {
	Least int               // approvals that any rollout needs
	May   func(Person) bool // whether somebody who agreed may do so still; nil for always
}

func (q Quorum) may(p Person) bool { return q.May == nil || q.May(p) }

// Needs returns how many people must agree.
func (q Quorum) Needs(r *Rollout) int { return max(r.MinApprovals, q.Least) }

// Written is nil when it is known who the first person of a rollout is, or nobody has to agree; else an error
// of that kind.
func (q Quorum) Written(r *Rollout, kind muster.Kind) error {
	if q.Needs(r) == 0 || r.written() {
		return nil
	}
	return muster.Errorf(kind, "an API key that no user owns made or wrote the rollout, and others must agree to it: make it as a user, or with a key that a user owns")
}

// Met says why a rollout may not begin, nil when it may: it is known who wrote it, and enough people have agreed
// who may do so now. Conflict otherwise.
func (q Quorum) Met(r *Rollout) error {
	if err := q.Written(r, muster.Conflict); err != nil {
		return err
	}
	have := 0
	for i := range r.Approvals {
		if q.may(r.Approvals[i].By) {
			have++
		}
	}
	switch needs, gone := q.Needs(r), len(r.Approvals)-have; {
	case have >= needs:
		return nil
	case gone > 0:
		return muster.Errorf(muster.Conflict, "%s besides who made the rollout must agree before it starts, %d %s, without %d who may not any more", people(needs), have, either(have == 1, "has", "have"), gone)
	default:
		return muster.Errorf(muster.Conflict, "%s besides who made the rollout must agree before it starts, %d %s", people(needs), have, either(have == 1, "has", "have"))
	}
}

func people(n int) string {
	if n == 1 {
		return "1 person"
	}
	return strconv.Itoa(n) + " people"
}

// Rewritten notes that somebody has changed a rollout that did not begin yet: what people had agreed to is another
// thing now, and who wrote it does not agree to it. What began stays agreed to.
func (r *Rollout) Rewritten(by Person) {
	if r.Started == 0 {
		r.EditedBy, r.Approvals = by, nil
	}
}

// Lowers says whether a rollout that began may bring a device a lower security version than it confirmed: it says
// so, and besides who wrote it, who is known, another person had to agree, and has: see Quorum.Met.
func (r *Rollout) Lowers() bool {
	return r.Downgrade && r.MinApprovals > 0 && r.written() && len(r.Approvals) > 0
}

// Agree notes that a second person agrees to a rollout that did not begin yet. Who made it, or wrote it last, is
// Forbidden to: two must have seen what starts, and q.Written says that they are two. A second time is a
// Conflict, and so is a rollout that began, or has ended.
func (r *Rollout) Agree(by Person, note string, q Quorum, now muster.Micros) error {
	switch {
	case r.Started != 0 || r.Status == Running || r.Status.Ended():
		return muster.Errorf(muster.Conflict, "the rollout is %s: only what did not begin yet is agreed to", r.Status)
	case by.ID == r.CreatedBy.ID || by.ID == r.EditedBy.ID:
		return muster.Errorf(muster.Forbidden, "who made or wrote the rollout may not agree to it: that is for a second person")
	case slices.ContainsFunc(r.Approvals, func(a Approval) bool { return a.By.ID == by.ID }):
		return muster.Errorf(muster.Conflict, "you have agreed already")
	}
	list := slices.Clone(r.Approvals)
	if len(list) >= MaxApprovals { // who may not any more makes room
		list = slices.DeleteFunc(list, func(a Approval) bool { return !q.may(a.By) })
	}
	if len(list) >= MaxApprovals {
		return muster.Errorf(muster.Conflict, "%d people have agreed, which is the most", MaxApprovals)
	}
	list = append(list, Approval{by, now, note})
	r.Approvals = list
	return nil
}
