package command

import (
	"muster"
)

// sendOp inserts a command.
type sendOp struct {
	reply
	spec      Spec
	key, hash string
	release   func() // of the key; nil without one
	id        int64
}

func (o *sendOp) add(c *Commands, b *batch) bool {
	id, err := c.place(b, o.spec.Device)
	if err != nil {
		c.drop(o, err)
		return false
	}
	o.id = id
	b.Insert = append(b.Insert, Insert{
		ID: id, Device: o.spec.Device, Method: o.spec.Method, Params: o.spec.Params, By: o.spec.By,
		Created: b.at, Expires: b.at + micros(o.spec.TTL), Key: o.key, Hash: o.hash,
	})
	return true
}

func (o *sendOp) committed(*Commands, *batch) {
	if o.release != nil {
		o.release()
	}
}

// place finds a new command of a device an id, or says why there is no room for it.
func (c *Commands) place(b *batch, device muster.DeviceID) (int64, error) {
	open := b.added[device]
	if l := c.desk.lines[device]; l != nil {
		open += len(l.all)
	}
	switch {
	case open >= MaxOpenPerDevice:
		return 0, muster.Errorf(muster.Busy, "%d commands of this device are unfinished, more are not allowed", MaxOpenPerDevice)
	case len(c.desk.items)+len(b.Insert) >= MaxOpen:
		return 0, muster.Errorf(muster.Busy, "%d commands are unfinished, more are not allowed", MaxOpen)
	case c.desk.ids.next == c.desk.ids.end:
		return 0, muster.Errorf(muster.Busy, "more commands at a time than there are ids at hand")
	}
	b.added[device]++
	id := c.desk.ids.next
	c.desk.ids.next++
	return id, nil
}

// cancelOp calls a command off.
type cancelOp struct {
	reply
	id     int64
	device muster.DeviceID
}

func (o *cancelOp) add(c *Commands, b *batch) bool {
	it := c.desk.items[o.id]
	if it == nil || it.Device != o.device { // ended, or deleted, since it was looked up
		o.end(muster.Errorf(muster.Conflict, "the command has ended meanwhile"))
		return false
	}
	if why := c.happen(b, it, evCancel, b.at, nil); why != "" {
		o.end(muster.Errorf(muster.Conflict, "%s", why))
		return true // what was found on the way, an expiry, is committed
	}
	return true
}

func (o *cancelOp) committed(*Commands, *batch) {}

// reportsOp takes what devices report.
type reportsOp struct {
	reply
	list []sorted
	errs []error
}

// sorted is a Report that was read.
type sorted struct {
	report
	device muster.DeviceID
	id     int64
	err    error
}

func sort(r Report) sorted {
	s := sorted{device: r.Device}
	if s.id, s.err = ParseID(r.Command); s.err != nil {
		s.err = errUnknown()
		return s
	}
	s.report, s.err = parseReport(r.Payload)
	return s
}

func errUnknown() error {
	return muster.Errorf(muster.Invalid, "the device has no such command")
}

func (o *reportsOp) add(c *Commands, b *batch) bool {
	for i := range o.list {
		s := &o.list[i]
		if s.err == nil {
			o.errs[i] = c.reported(b, s)
		}
	}
	return true
}

func (o *reportsOp) committed(*Commands, *batch) {}

// reported lets one report happen; one that came too late is kept as that.
func (c *Commands) reported(b *batch, s *sorted) error {
	it := c.desk.items[s.id]
	if it == nil {
		e, ok := b.ended[s.id]
		if !ok || e.Device != s.device {
			return errUnknown()
		}
		return b.tooLate(e.State, s)
	}
	if it.Device != s.device {
		return errUnknown()
	}
	if c.happen(b, it, s.ev, b.at, &s.report) == "" {
		return nil
	}
	return b.tooLate(b.draft(it).State, s)
}

func (b *batch) tooLate(state State, s *sorted) error {
	why := next(state, s.ev).refused
	if why == "" { // said before, and sent again
		return nil
	}
	if state == Expired || state == Cancelled {
		b.Late = append(b.Late, Late{ID: s.id, At: b.at, Status: s.status, Result: s.result, Error: s.report.err})
	}
	return muster.Errorf(muster.Invalid, "%s", why)
}
