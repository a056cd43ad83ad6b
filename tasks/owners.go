package tasks

import "slices"

// Recheck cancels the tasks of owners who may not come in any more. Shared ones go on: others
// may wait for them. Call it whenever an owner may have ended; it does not block.
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

// orphans returns the unfinished tasks whose owners may not come in any more.
func (t *Tasks) orphans() []*job {
	if t.alive == nil {
		return nil
	}
	var open []*job
	t.mu.Lock()
	for _, j := range t.order {
		if !j.State.Final() && !j.Cancelled && j.key == "" {
			open = append(open, j)
		}
	}
	t.mu.Unlock()
	return slices.DeleteFunc(open, func(j *job) bool { return t.alive(j.Owner) })
}
