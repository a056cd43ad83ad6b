package tasks

import "slices"

// Recheck cancels the tasks of owners who may not come in any more, or have the scope of their kind no more. A shared
// one goes on while somebody who may wants it. Call it whenever an owner may have ended or has another role; it does not block.
func (t *Tasks) Recheck() {
	for _, j := range t.orphans() {
		select {
		case j.turn <- struct{}{}:
			if !t.snapshot(j).State.Final() {
				t.cancelNow(j)
			}
			<-j.turn
			t.watch.tell(j.ID)
		default: // it is just ending
		}
	}
}

// orphans returns the unfinished tasks whose owners may not do such any more.
func (t *Tasks) orphans() []*job {
	if t.may == nil {
		return nil
	}
	var open []*job
	t.mu.Lock()
	for _, j := range t.order {
		if !j.State.Final() && !j.Cancelled {
			open = append(open, j)
		}
	}
	t.mu.Unlock()
	return slices.DeleteFunc(open, t.mayGoOn)
}

// mayGoOn says whether one of those whom j is done for may come in and do what is of its kind. Of a shared kind the
// scope is whose door it was asked for by.
func (t *Tasks) mayGoOn(j *job) bool {
	if t.may == nil {
		return true
	}
	scope := j.kind.Scope
	if j.kind.Key != nil {
		scope = ""
	}
	task := t.snapshot(j)
	return t.may(task.Owner, scope) || slices.ContainsFunc(task.Joined, func(o Owner) bool { return t.may(o, scope) })
}
