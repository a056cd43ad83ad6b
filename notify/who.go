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
	return n.given(who, t)
}

// given is the highest role that members of who's have. It is called with the lock held.
func (n *Notify) given(who Who, t *Topic) Role {
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

// Owner returns who a subject is, as he would ask himself.
func (n *Notify) Owner(s Subject) Who {
	if id, ok := s.Device(); ok {
		return Who{Kind: "device", ID: string(id), Name: string(id), Device: id}
	}
	p, _ := n.options.People.Person(string(s))
	return Who{Kind: "user", ID: string(s), User: string(s), Name: p.Name, Admin: p.Admin}
}

// shown says whether a subject may see what was sent to the topic of an id: who lost a topic sees
// nothing of it any more. What Muster itself says is to each alone.
func (n *Notify) shown(s Subject, topic string) bool {
	t, ok := n.topic(topic)
	return !ok || t.ID == SystemTopic || n.entitled(&t, s)
}

// hidden returns the ids of the topics of which who is shown nothing, in no order.
func (n *Notify) hidden(who Who) (ids []string) {
	if who.Admin || who.Device != "" {
		return nil
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	for id := range n.topics {
		t := n.topics[id]
		if t.Visibility != Internal && id != SystemTopic && (who.User == "" || who.User != t.Owner) && n.given(who, &t) == "" {
			ids = append(ids, id)
		}
	}
	return ids
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
