package broker

import (
	"strings"

	"muster"
)

// place is where a published message goes.
type place uint8

const (
	placeNone  place = iota // refused
	placeSink               // Muster takes it in
	placeRelay              // to subscribers only
)

// destination is what rights say of a topic that a client publishes to.
type destination struct {
	place  place
	topic  string          // canonical
	device muster.DeviceID // whose topic it is, for placeSink
	why    string          // for placeNone: the reason, for people
}

func refuse(why string) destination { return destination{why: why} }

// rights decides what one identity may do, in memory. It never changes.
type rights struct {
	who    Identity
	prefix string // devices/{id}/ for a device
}

func newRights(who Identity) rights {
	r := rights{who: who}
	if who.Device != "" {
		r.prefix = deviceTopics + string(who.Device) + "/"
	}
	return r
}

// publish says where a message published to topic goes.
func (r *rights) publish(topic string) destination {
	if why := checkSize(topic); why != "" {
		return refuse(why)
	}
	switch {
	case r.who.Device != "":
		return r.publishOwn(topic)
	case !r.who.Admin:
		return refuse("this account may publish to no topic")
	case topic[0] == '$':
		return refuse("topics that begin with $ belong to the server")
	case strings.HasPrefix(topic, ownTopics):
		return refuse("devices/me stands for the connected device, and this connection is none")
	}
	if id, rest, ok := splitDevice(topic); ok && isTelemetry(rest) {
		return destination{place: placeSink, topic: topic, device: id}
	}
	return destination{place: placeRelay, topic: topic}
}

func (r *rights) publishOwn(topic string) destination {
	canonical, rest, ok := r.own(topic)
	switch {
	case !ok:
		return refuse("a device may publish under devices/{its own id}/ and devices/me/ only")
	case isTelemetry(rest):
		return destination{place: placeSink, topic: canonical, device: r.who.Device}
	case isUp(rest):
		return destination{place: placeRelay, topic: canonical}
	case isDown(rest):
		return refuse("this topic is written by the server, devices only read it")
	}
	return refuse("there is no such topic below devices/{id}/")
}

// own returns a topic or filter of the device itself in its canonical spelling,
// and what stands behind devices/{id}/ in it.
func (r *rights) own(topic string) (canonical, rest string, ok bool) {
	if r.prefix == "" {
		return topic, "", false
	}
	if rest, ok = strings.CutPrefix(topic, r.prefix); ok {
		return topic, rest, true
	}
	if rest, ok = strings.CutPrefix(topic, ownTopics); ok {
		return r.prefix + rest, rest, true
	}
	return topic, "", false
}

// subscribe says whether filter (valid, without $share) may be subscribed and
// returns its canonical spelling, and whether it was spelled with me. why is the
// reason of a refusal.
func (r *rights) subscribe(filter string) (canonical string, me bool, why string) {
	if r.who.Device == "" {
		switch {
		case !r.who.Admin:
			return "", false, "this account may subscribe to no topic"
		case strings.HasPrefix(filter, ownTopics):
			return "", false, "devices/me stands for the connected device, and this connection is none"
		}
		return filter, false, ""
	}
	canonical, rest, ok := r.own(filter)
	switch {
	case !ok:
		return "", false, "a device may subscribe under devices/{its own id}/ and devices/me/ only"
	case !mayGet(rest):
		return "", false, "there is nothing for a device to receive at this topic"
	}
	return canonical, canonical != filter, ""
}

// receive says whether a message at topic, a canonical name, may be delivered.
func (r *rights) receive(topic string) bool {
	if r.who.Device == "" {
		return r.who.Admin
	}
	rest, ok := strings.CutPrefix(topic, r.prefix)
	return ok && isDown(rest)
}
