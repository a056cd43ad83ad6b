package broker

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"muster"
	"muster/broker/thingsboard"
	"muster/broker/topic"
)

// Kinds of journal records, their first byte. Numbers are unsigned varints, strings
// and bytes have their length before them.
const (
	recordNothing  = 0  // ends an item
	recordSession  = 1  // a session as it is now
	recordEnded    = 2  // a session ended, with all it had
	recordMessage  = 3  // a message and the sessions that are to have it
	recordDone     = 4  // a session has had a message
	recordReleased = 5  // a session's client has a QoS 2 message; PUBREL is due
	recordRetained = 6  // a topic's retained message
	recordCleared  = 7  // a topic has none any more
	recordReceived = 8  // a QoS 2 message with this packet id has been taken in
	recordFreed    = 9  // PUBREL came for it
	recordPair     = 10 // recordReceived and recordMessage, of which neither may survive alone
)

// Flags of a subscription's record.
const (
	subNoLocal = 1 << iota
	subAsPublished
	subOwn
	subMe
	subApart
	subSpelled // by ThingsBoard's filter, which follows
	subKids
)

func appendText[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func nothing() []byte { return []byte{recordNothing} }

// AppendRecord implements journal.Encoder. It reads only what never changes, and
// the state, which is replaced as a whole.
func (s *session) AppendRecord(b []byte) []byte {
	st := s.state.Load()
	b = append(b, recordSession)
	b = binary.AppendUvarint(b, s.num)
	b = appendText(b, s.clientID)
	b = appendText(b, s.device)
	b = appendText(b, s.account)
	b = binary.AppendUvarint(b, uint64(st.expiry/time.Second))
	b = binary.AppendUvarint(b, uint64(st.gone))
	b = binary.AppendUvarint(b, uint64(len(st.subs)))
	for i := range st.subs {
		b = appendSubscription(b, &st.subs[i])
	}
	return b
}

func appendSubscription(b []byte, x *subscription) []byte {
	var flags byte
	for _, f := range []struct {
		on  bool
		bit byte
	}{
		{x.NoLocal, subNoLocal},
		{x.RetainAsPublished, subAsPublished},
		{x.own, subOwn},
		{x.me, subMe},
		{x.apart, subApart},
		{x.tb != nil, subSpelled},
		{x.kids, subKids},
	} {
		if f.on {
			flags |= f.bit
		}
	}
	b = append(b, flags, x.QoS, x.RetainHandling)
	b = binary.AppendUvarint(b, uint64(x.Identifier))
	b = appendText(b, x.group)
	b = appendText(b, x.filter)
	if x.tb != nil {
		b = appendText(b, x.tb.Filter)
	}
	return b
}

func appendEnded(b []byte, num uint64) []byte {
	return binary.AppendUvarint(append(b, recordEnded), num)
}

func appendBody(b []byte, m *message) []byte {
	flags := m.qos
	if m.retain {
		flags |= 4
	}
	b = append(b, flags)
	b = appendText(b, m.topic)
	b = appendText(b, m.props)
	b = binary.AppendUvarint(b, uint64(m.expires))
	return appendText(b, m.payload)
}

// AppendRecord implements journal.Encoder: the message with the targets that are
// not done.
func (k *stored) AppendRecord(b []byte) []byte {
	b = append(b, recordMessage)
	b = binary.AppendUvarint(b, k.num)
	b = appendBody(b, k.m)
	for _, t := range k.targets {
		state := t.state.Load()
		if state == targetDone {
			continue
		}
		flags := t.flags
		if state == targetReleased {
			flags |= flagReleased
		}
		b = binary.AppendUvarint(b, t.s.num)
		b = binary.AppendUvarint(b, t.n)
		b = append(b, t.qos, flags)
		b = binary.AppendUvarint(b, uint64(len(t.ids)))
		for _, id := range t.ids {
			b = binary.AppendUvarint(b, uint64(id))
		}
	}
	return b
}

func appendDone(b []byte, num, n uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, recordDone), num), n)
}

func appendReleased(b []byte, num, n uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, recordReleased), num), n)
}

// AppendRecord implements journal.Encoder.
func (r *retained) AppendRecord(b []byte) []byte {
	return appendBody(appendText(append(b, recordRetained), r.by), r.m)
}

func appendCleared(b []byte, name string) []byte { return appendText(append(b, recordCleared), name) }

// AppendRecord implements journal.Encoder.
func (r *receipt) AppendRecord(b []byte) []byte {
	b = binary.AppendUvarint(append(b, recordReceived), r.num)
	return binary.AppendUvarint(b, uint64(r.id))
}

// appendPair writes a message together with the packet id it came with.
func appendPair(b []byte, r *receipt, k *stored) []byte {
	b = binary.AppendUvarint(append(b, recordPair), r.num)
	b = binary.AppendUvarint(b, uint64(r.id))
	return k.AppendRecord(b)
}

func appendFreed(b []byte, num uint64, id uint16) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, recordFreed), num), uint64(id))
}

// recordReader reads a record; after its first failure it yields zeros.
type recordReader struct {
	b   []byte
	bad bool
}

func (r *recordReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *recordReader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *recordReader) text() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *recordReader) err(kind byte) error {
	if r.bad {
		return fmt.Errorf("a record of kind %d is cut short", kind)
	}
	return nil
}

// body reads a message. It has memory of its own.
func (r *recordReader) body() *message {
	flags := r.byte()
	m := &message{qos: flags & 3, retain: flags&4 != 0, owned: true}
	m.topic = string(r.text())
	m.props = append([]byte(nil), r.text()...)
	m.expires = int64(min(r.uint(), math.MaxInt64))
	m.payload = append([]byte(nil), r.text()...)
	return m
}

func (r *recordReader) subscription() subscription {
	flags := r.byte()
	x := subscription{own: flags&subOwn != 0, me: flags&subMe != 0, apart: flags&subApart != 0, kids: flags&subKids != 0}
	x.Options = topic.Options{
		QoS: r.byte(), RetainHandling: r.byte(),
		NoLocal: flags&subNoLocal != 0, RetainAsPublished: flags&subAsPublished != 0,
	}
	x.Identifier = uint32(r.uint())
	x.group = string(r.text())
	x.filter = string(r.text())
	if x.kids && !behind(x.filter) {
		r.bad = true
	}
	if flags&subSpelled != 0 {
		s, err := thingsboard.Subscribe(string(r.text()))
		if err != nil {
			r.bad = true
		}
		x.tb = &s
	}
	return x
}

// savedSession is a session's record as it was read.
type savedSession struct {
	num               uint64
	clientID, account string
	device            muster.DeviceID
	state             *sessionState
}

func (r *recordReader) session() savedSession {
	s := savedSession{num: r.uint(), clientID: string(r.text())}
	s.device, s.account = muster.DeviceID(r.text()), string(r.text())
	st := &sessionState{expiry: time.Duration(min(r.uint(), math.MaxUint32)) * time.Second}
	st.gone = int64(min(r.uint(), math.MaxInt64))
	for range min(r.uint(), uint64(len(r.b))) {
		st.subs = append(st.subs, r.subscription())
	}
	s.state = st
	return s
}
