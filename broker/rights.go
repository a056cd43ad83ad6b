package broker

import (
	"strings"

	"muster"
	"muster/broker/topic"
)

const (
	deviceTopics = "devices/"
	ownTopics    = "devices/me/"
	telemetry    = "telemetry"
	sysTopics    = "$SYS/"
)

// What a device may publish and what it may receive under devices/{id}/ (DESIGN,
// section 4), as filters. Telemetry stands apart: it goes to the sink.
var (
	upTopics = [...]string{
		"reported", "commands/+/result", "events/+", "logs",
		"firmware/status", "firmware/get", "firmware/cancel/ack", "notifications/+/ack",
	}
	downTopics = [...]string{
		"desired", "commands/+", "firmware", "firmware/data/+", "firmware/error", "firmware/cancel",
		"notifications", "presence", "errors",
	}
)

// isTelemetry says whether rest, a topic behind devices/{id}/, carries telemetry.
func isTelemetry(rest string) bool {
	return strings.HasPrefix(rest, telemetry) && (len(rest) == len(telemetry) || rest[len(telemetry)] == '/')
}

func isUp(rest string) bool   { return matchesAny(upTopics[:], rest) }
func isDown(rest string) bool { return matchesAny(downTopics[:], rest) }

func matchesAny(filters []string, name string) bool {
	for _, f := range filters {
		if topic.Matches(f, name) {
			return true
		}
	}
	return false
}

// mayGet says whether filter, behind devices/{id}/, can match a topic that a
// device may receive.
func mayGet(filter string) bool {
	for _, f := range downTopics {
		if topic.Overlaps(filter, f) {
			return true
		}
	}
	return false
}

func coveredBy(grants []string, filter string) bool {
	for _, g := range grants {
		if topic.Covers(g, filter) {
			return true
		}
	}
	return false
}

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

// rights decides what one identity may do, in memory. It never changes; other
// rights replace it.
type rights struct {
	who    Identity
	prefix string // devices/{id}/ for a device
	parent func(muster.DeviceID) muster.DeviceID
}

func newRights(who Identity, parent func(muster.DeviceID) muster.DeviceID) *rights {
	r := &rights{who: who, parent: parent}
	if who.Device != "" {
		r.prefix = deviceTopics + string(who.Device) + "/"
	}
	return r
}

// publish says where a message published to name goes.
func (r *rights) publish(name string) destination {
	if why := topic.CheckName(name); why != "" {
		return refuse(why)
	}
	if name[0] == '$' && r.who.Device == "" {
		return refuse("topics that begin with $ belong to the server")
	}
	if strings.HasPrefix(name, ownTopics) && r.who.Device == "" {
		return refuse("devices/me stands for the connected device, and this connection is none")
	}
	if canonical, rest, ok := r.own(name); ok {
		return r.publishFor(r.who.Device, canonical, rest)
	}
	id, rest, ofDevice := splitDevice(name)
	if ofDevice && r.isParentOf(id) {
		return r.publishFor(id, name, rest)
	}
	switch {
	case name[0] == '$', !r.mayPublish(name):
		return refuse(r.refusal())
	case ofDevice && isTelemetry(rest):
		return destination{place: placeSink, topic: name, device: id}
	}
	return destination{place: placeRelay, topic: name}
}

// mayPublish says whether the client may publish beyond what is a device's own.
func (r *rights) mayPublish(name string) bool {
	return r.who.Admin || coveredBy(r.who.Publish, name) || r.who.WriteFree && muster.FreeTopic(name)
}

func (r *rights) refusal() string {
	if r.who.Device != "" {
		return "a device may publish under devices/{its own id}/, devices/me/ and its children's topics only"
	}
	return "this account may not publish to this topic"
}

// publishFor decides on a topic of a device, for the device or its gateway.
func (r *rights) publishFor(id muster.DeviceID, canonical, rest string) destination {
	switch {
	case isTelemetry(rest):
		return destination{place: placeSink, topic: canonical, device: id}
	case isUp(rest):
		return destination{place: placeRelay, topic: canonical}
	case coveredBy(r.who.Publish, canonical):
		return destination{place: placeRelay, topic: canonical}
	case isDown(rest):
		return refuse("this topic is written by the server, devices only read it")
	}
	return refuse("there is no such topic below devices/{id}/")
}

func (r *rights) isParentOf(id muster.DeviceID) bool {
	return r.who.Device != "" && r.parent(id) == r.who.Device
}

// own returns a topic or filter of the device itself in its canonical spelling,
// and what stands behind devices/{id}/ in it.
func (r *rights) own(name string) (canonical, rest string, ok bool) {
	if r.prefix == "" {
		return name, "", false
	}
	if rest, ok = strings.CutPrefix(name, r.prefix); ok {
		return name, rest, true
	}
	if rest, ok = strings.CutPrefix(name, ownTopics); ok {
		return r.prefix + rest, rest, true
	}
	return name, "", false
}

// subscribe puts a filter (valid, without $share) in its canonical form. why is the
// reason of a refusal.
func (r *rights) subscribe(filter string) (x subscription, why string) {
	if strings.HasPrefix(filter, ownTopics) && r.who.Device == "" {
		return x, "devices/me stands for the connected device, and this connection is none"
	}
	canonical, rest, own := r.own(filter)
	if own && mayGet(rest) {
		return subscription{filter: rest, own: true, me: canonical != filter}, ""
	}
	id, below, ofDevice := splitDevice(filter)
	switch {
	case r.who.Admin, coveredBy(r.who.Subscribe, canonical), r.who.ReadFree && muster.FreeFilter(canonical):
		return subscription{filter: canonical}, ""
	case own:
		return x, "there is nothing for a device to receive at this topic"
	case ofDevice && r.isParentOf(id):
		if !coveredBy(downTopics[:], below) {
			return x, "there is nothing for a gateway to receive at this topic of its child"
		}
		return subscription{filter: filter}, ""
	case r.who.Device != "":
		return x, "a device may subscribe under devices/{its own id}/, devices/me/ and its children's topics only"
	}
	return x, "this account may not subscribe to this filter"
}

// holds says whether a subscription made earlier may stay.
func (r *rights) holds(x *subscription) bool {
	if x.own {
		return r.who.Device != "" && mayGet(x.filter)
	}
	_, why := r.subscribe(x.filter)
	return why == ""
}

// splitDevice splits devices/{id}/{rest}. ok is false for any other topic.
func splitDevice(name string) (id muster.DeviceID, rest string, ok bool) {
	tail, found := strings.CutPrefix(name, deviceTopics)
	if !found {
		return "", "", false
	}
	first, rest, more := strings.Cut(tail, "/")
	if !more {
		return "", "", false
	}
	id, err := muster.ParseDeviceID(first)
	return id, rest, err == nil
}
