package broker

import (
	"slices"
	"strings"

	"muster"
	"muster/broker/thingsboard"
	"muster/broker/topic"
)

const (
	deviceTopics = "devices/"
	ownTopics    = "devices/me/"
	telemetry    = "telemetry"
	sysTopics    = "$SYS/"
)

// What a device may publish and what it may receive under devices/{id}/ (DESIGN,
// section 4), as filters. What the sink takes in stands apart: see taken.
var (
	upTopics   = [...]string{"requests/+"}
	downTopics = [...]string{
		"desired", "commands/+", "firmware", "firmware/data/+", "firmware/error", "firmware/cancel",
		"notifications", "presence", "errors", "requests/+/response",
	}
)

// ownHeads are the beginnings of topics behind devices/{id}/ that are Muster's, with all below them.
var ownHeads = [...]string{telemetry, "reported", "desired", "commands", "events", "logs", "firmware", "notifications", "notify", "presence", "errors", "requests"}

// taken says as what Muster takes in a message at rest, a topic behind devices/{id}/;
// ok is false when it does not. why says what is wrong with a topic of such a kind.
func taken(rest string) (kind Kind, ok bool, why string) {
	head, tail, more := strings.Cut(rest, "/")
	switch {
	case head == telemetry:
		return KindTelemetry, true, ""
	case head == "reported" && !more:
		return KindReported, true, ""
	case head == "logs" && !more:
		return KindLog, true, ""
	case head == "events" && more && !strings.Contains(tail, "/"):
		if !isWord(tail, true) {
			return KindEvent, true, "the type of an event has 1 to 64 letters, digits and . _ -"
		}
		return KindEvent, true, ""
	case head == "notify" && more && !strings.Contains(tail, "/"):
		if !isWord(tail, true) {
			return KindNotify, true, "the name of a topic for notifications has 1 to 64 letters, digits and . _ -"
		}
		return KindNotify, true, ""
	case rest == "firmware/status", rest == "firmware/cancel/ack":
		return KindFirmware, true, ""
	case rest == "firmware/get":
		return KindFirmwareGet, true, ""
	case head == "commands":
		return answers(KindResult, tail, "/result", "the id of a command has 1 to 64 letters, digits and _ -")
	case head == "notifications":
		return answers(KindNotificationAck, tail, "/ack", "the id of a notification has 1 to 64 letters, digits and _ -")
	}
	return 0, false, ""
}

// answers is taken for what a device answers to something with an id: tail is the id and
// suffix.
func answers(kind Kind, tail, suffix, wrong string) (Kind, bool, string) {
	id, is := strings.CutSuffix(tail, suffix)
	if !is || strings.Contains(id, "/") {
		return 0, false, ""
	}
	if !isWord(id, false) {
		return kind, true, wrong
	}
	return kind, true, ""
}

// isWord says whether s is 1 to 64 of [A-Za-z0-9_-], and the dot where it may be.
func isWord(s string, dot bool) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && (c != '.' || !dot) {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 64
}

// IsOwn says whether rest, a topic behind devices/{id}/, is one that means something to Muster: what is
// published at it goes through the room whose it is.
func IsOwn(rest string) bool {
	_, ok, _ := taken(rest)
	head, _, _ := strings.Cut(rest, "/")
	return ok || isUp(rest) || isDown(rest) || slices.Contains(ownHeads[:], head)
}

// isState says whether rest is of a topic whose newest payload States knows.
func isState(rest string) bool { return rest == stateDesired || rest == statePresence }

// Topics behind devices/{id}/ that States knows.
const stateDesired, statePresence = "desired", "presence"

const writtenHere = "this topic is written by the server, clients only read it"

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
	placeNone    place = iota // refused
	placeSink                 // Muster takes it in
	placeSpelled              // as what ThingsBoard means by the topic
	placeAside                // so it does, and it is acknowledged whatever becomes of it
	placeRelay                // to subscribers only
)

// destination is what rights say of a topic that a client publishes to.
type destination struct {
	place  place
	kind   Kind            // for placeSink and placeAside
	topic  string          // canonical; for placeAside as it came
	device muster.DeviceID // whose topic it is, for placeSink
	by     muster.DeviceID // the gateway that publishes for device
	why    string          // for placeNone: the reason, for people
}

func refuse(why string) destination { return destination{why: why} }

// rights decides what one identity may do, in memory. It never changes; other
// rights replace it.
type rights struct {
	who    Identity
	prefix string // devices/{id}/ for a device
	parent func(muster.DeviceID) muster.DeviceID
	speaks func(Identity) bool // whether a device is a gateway; nil: none is
}

func newRights(who Identity, parent func(muster.DeviceID) muster.DeviceID) *rights {
	if who.Place != Normal { // a guest has nothing but its place
		who = Identity{Name: who.Name, Credential: who.Credential, Rate: who.Rate, Place: who.Place}
	}
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
	if r.who.Place != Normal {
		return r.publishAsGuest(name)
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
	if r.who.Device != "" && thingsboard.Is(name) {
		return destination{place: placeSpelled, topic: name}
	}
	id, rest, ofDevice := splitDevice(name)
	if ofDevice && r.isParentOf(id) {
		dst := r.publishFor(id, name, rest)
		dst.by = r.who.Device
		return dst
	}
	if name[0] == '$' || !r.mayPublish(name) {
		return refuse(r.refusal())
	}
	if !ofDevice {
		return destination{place: placeRelay, topic: name}
	}
	kind, ok, why := taken(rest)
	switch {
	case why != "":
		return refuse(why)
	case isState(rest):
		return refuse(writtenHere)
	case ok:
		return destination{place: placeSink, kind: kind, topic: name, device: id}
	}
	return destination{place: placeRelay, topic: name}
}

// Topics of provisioning: Muster's spelling, and ThingsBoard's.
const (
	provisionRequest, provisionRequestTB   = "provision/request", "/provision/request"
	provisionResponse, provisionResponseTB = "provision/response", "/provision/response"
)

func (r *rights) publishAsGuest(name string) destination {
	switch {
	case r.who.Place == Quarantine:
		return destination{place: placeAside, kind: KindSample, topic: name}
	case name == provisionRequest || name == provisionRequestTB:
		return destination{place: placeAside, kind: KindRequest, topic: name}
	}
	return refuse("who connects to be provisioned may publish provision/request only")
}

// mayPublish says whether the client may publish beyond what is a device's own.
func (r *rights) mayPublish(name string) bool {
	if !r.reaches(name) {
		return false
	}
	return r.who.Admin || coveredBy(r.who.Publish, name) || r.who.WriteFree && muster.FreeTopic(name)
}

// reaches says whether a topic is one that the client's rights are meant for now: of an
// account that is bound to some devices (Identity.May) only theirs are.
func (r *rights) reaches(name string) bool {
	if r.who.May == nil {
		return true
	}
	id, _, ok := splitDevice(name)
	return ok && r.who.May(id)
}

// mayHear says whether an account that is bound to some devices may subscribe to filter: to
// topics of one of them, or of any, of which it then gets what is theirs.
func (r *rights) mayHear(filter string) bool {
	return r.who.May == nil || strings.HasPrefix(filter, deviceTopics+"+/") || r.reaches(filter)
}

func (r *rights) refusal() string {
	if r.who.Device != "" {
		return "a device may publish under devices/{its own id}/, devices/me/ and its children's topics only"
	}
	return "this account may not publish to this topic"
}

// publishFor decides on a topic of a device, for the device or its gateway.
func (r *rights) publishFor(id muster.DeviceID, canonical, rest string) destination {
	if isState(rest) {
		return refuse(writtenHere)
	}
	kind, ok, why := taken(rest)
	switch {
	case why != "":
		return refuse(why)
	case ok:
		return destination{place: placeSink, kind: kind, topic: canonical, device: id}
	case isUp(rest):
		return destination{place: placeRelay, topic: canonical}
	case coveredBy(r.who.Publish, canonical):
		return destination{place: placeRelay, topic: canonical}
	case isDown(rest):
		return refuse(writtenHere)
	}
	return refuse("there is no such topic below devices/{id}/")
}

func (r *rights) isParentOf(id muster.DeviceID) bool {
	return r.who.Device != "" && r.parent(id) == r.who.Device
}

// isGateway says whether the client is a device that has children, or may bring some.
func (r *rights) isGateway() bool { return r.speaks != nil && r.speaks(r.who) }

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
	if r.who.Place != Normal {
		return r.subscribeAsGuest(filter)
	}
	if strings.HasPrefix(filter, ownTopics) && r.who.Device == "" {
		return x, "devices/me stands for the connected device, and this connection is none"
	}
	if r.who.Device != "" && filter == provisionResponseTB {
		return x, "only who connects to be provisioned may subscribe to /provision/response"
	}
	if r.who.Device != "" && thingsboard.Is(filter) {
		return subscribeSpelled(filter)
	}
	canonical, rest, own := r.own(filter)
	if own && mayGet(rest) {
		return subscription{filter: rest, own: true, me: canonical != filter}, ""
	}
	id, below, ofDevice := splitDevice(filter)
	switch {
	case !r.mayHear(canonical):
		return x, "this account may not subscribe to this filter"
	case r.who.Admin, coveredBy(r.who.Subscribe, canonical), r.who.ReadFree && muster.FreeFilter(canonical):
		return subscription{filter: canonical}, ""
	case own:
		return x, "there is nothing for a device to receive at this topic"
	case ofDevice && r.isParentOf(id):
		if !coveredBy(downTopics[:], below) {
			return x, "there is nothing for a gateway to receive at this topic of its child"
		}
		return subscription{filter: filter}, ""
	case r.isGateway():
		if behind(filter) {
			return subscription{filter: filter, apart: true, kids: true}, ""
		}
		fallthrough
	case r.who.Device != "":
		return x, "a device may subscribe under devices/{its own id}/, devices/me/ and its children's topics only"
	}
	return x, "this account may not subscribe to this filter"
}

func (r *rights) subscribeAsGuest(filter string) (x subscription, why string) {
	if r.who.Place == Quarantine || filter == provisionResponse || filter == provisionResponseTB {
		return subscription{filter: filter, apart: true}, ""
	}
	return x, "who connects to be provisioned may subscribe to provision/response only"
}

// holds says whether a subscription made earlier may stay.
func (r *rights) holds(x *subscription) bool {
	if x.own {
		return r.who.Device != "" && mayGet(x.filter)
	}
	if x.kids { // it gives nothing to who has no child any more
		return r.who.Device != ""
	}
	now, why := r.subscribe(x.filter)
	return why == "" && !now.kids
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
