package notify

import (
	"muster"
)

// Who is asking.
type Who struct {
	Kind   string          // "user", "key" or "device"
	ID     string          // of the user, the key or the device
	User   string          // the user who it is, or whose key it is; empty for none
	Name   string          // as people know it
	Admin  bool            // may do everything
	Device muster.DeviceID // for a device
}

// Subject returns whose inbox who has, empty for none.
func (w Who) Subject() Subject {
	switch {
	case w.Device != "":
		return DeviceSubject(w.Device)
	case w.Kind == "user":
		return Subject(w.User)
	}
	return ""
}

// sender is whose limit who sends within: all keys of a user, and he himself, have one.
func (w Who) sender() string {
	if w.User != "" {
		return "user " + w.User
	}
	return w.Kind + " " + w.ID
}

// rank orders roles.
func rank(r Role) int {
	switch r {
	case RoleOwner:
		return 3
	case RolePublisher:
		return 2
	case RoleSubscriber:
		return 1
	}
	return 0
}

// role returns the highest role that who has in a topic, empty for none.
func (n *Notify) role(who Who, t *Topic) Role {
	if who.Admin || who.User != "" && who.User == t.Owner {
		return RoleOwner
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	best := n.members[t.ID][who.ID].Role
	if who.User != "" {
		if r := n.members[t.ID][who.User].Role; rank(r) > rank(best) {
			best = r
		}
	}
	return best
}

// sees says whether who may know that a topic is there.
func (n *Notify) sees(who Who, t *Topic) bool {
	if t.Visibility == Internal && who.Device == "" {
		return true
	}
	return n.role(who, t) != ""
}

// find returns the topic of an id or a name that who may see: to anybody else it is not there.
func (n *Notify) find(who Who, ref string) (Topic, error) {
	t, ok := n.topic(ref)
	if !ok || !n.sees(who, &t) {
		return Topic{}, errNoTopic()
	}
	return t, nil
}

func errNoTopic() error { return muster.Errorf(muster.NotFound, "there is no such topic") }

// findFor returns a topic in which who has at least a role.
func (n *Notify) findFor(who Who, ref string, least Role) (Topic, error) {
	t, err := n.find(who, ref)
	if err != nil {
		return Topic{}, err
	}
	if rank(n.role(who, &t)) < rank(least) {
		return Topic{}, muster.Errorf(muster.Forbidden, "this needs the role %s in the topic %s", least, t.Name)
	}
	return t, nil
}

// mayPublish says whether who may publish to a topic.
func (n *Notify) mayPublish(who Who, t *Topic) bool {
	if who.Device == "" {
		return rank(n.role(who, t)) >= rank(RolePublisher)
	}
	if t.Devices == "" {
		return false
	}
	e, err := n.options.Devices.Compile(t.Devices)
	return err == nil && n.options.Devices.Matches(who.Device, e)
}
