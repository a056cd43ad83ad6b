package notify

import (
	"context"
	"crypto/rand"
	"reflect"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/audit"
	"muster/internal/precondition"
)

const (
	topicPrefix      = "top_"
	defaultRetention = 90 * 24 * time.Hour
	maxPrincipal     = 64 // bytes
)

// TopicSpec is a topic to be made. Zero fields have the values of TopicDefaults.
type TopicSpec struct {
	Name        string
	Title       string
	Description string
	Owner       string // id of a user; who makes it when empty
	Visibility  Visibility
	Status      Status
	Retention   time.Duration
	AckPolicy   AckPolicy
	Escalation  Escalation
	Sources     []Source
	Devices     string
	Template    Template
	IfAbsent    bool // a topic of that name that is there already is returned as it is
}

// TopicChange says what of a topic is to be otherwise; what is nil stays.
type TopicChange struct {
	Name, Title, Description, Owner, Devices *string
	Visibility                               *Visibility
	Status                                   *Status
	Retention                                *time.Duration
	AckPolicy                                *AckPolicy
	Escalation                               *Escalation
	Sources                                  *[]Source
	Template                                 *Template
}

// Topics returns the topics that who may see, by name.
func (n *Notify) Topics(who Who) []Topic {
	return slices.DeleteFunc(n.all(), func(t Topic) bool { return !n.sees(who, &t) })
}

// Topic returns the topic of an id or a name, or NotFound.
func (n *Notify) Topic(who Who, ref string) (Topic, error) { return n.find(who, ref) }

// RoleIn returns what who may do in a topic, empty for no more than to see it.
func (n *Notify) RoleIn(who Who, t Topic) Role { return n.role(who, &t) }

// MayPublish says whether who may publish to a topic.
func (n *Notify) MayPublish(who Who, t Topic) bool { return n.mayPublish(who, &t) }

// CreateTopic makes a topic and returns it; made is false for one that was there already.
// Invalid when s breaks a rule, Conflict when another one has its name, Busy when there
// are MaxTopics. A topic that who may not see is a Conflict even with IfAbsent.
func (n *Notify) CreateTopic(ctx context.Context, who Who, s TopicSpec) (t Topic, made bool, err error) {
	t = n.newTopic(who, s)
	if err := n.checkTopic(&t); err != nil {
		return Topic{}, false, err
	}
	err = n.change(ctx, func(ctx context.Context) error {
		if old, ok := n.topic(t.Name); ok {
			if s.IfAbsent && n.sees(who, &old) {
				t = old
				audit.Nothing(ctx)
				return nil
			}
			return muster.Errorf(muster.Conflict, "there is a topic %s already", t.Name)
		}
		n.mu.RLock()
		count := len(n.topics)
		n.mu.RUnlock()
		if count >= MaxTopics {
			return muster.Errorf(muster.Busy, "there are %d topics already", MaxTopics)
		}
		made = true
		return n.putTopic(ctx, "topic.create", nil, t, firstMember(who, &t)...)
	})
	if err != nil {
		return Topic{}, false, err
	}
	return t, made, nil
}

// firstMember makes a key that is nobody's the owner of what it made: nobody else would be.
func firstMember(who Who, t *Topic) []Member {
	if t.Owner != "" || who.Admin || who.Kind != "key" {
		return nil
	}
	return []Member{{Topic: t.ID, Principal: who.ID, Role: RoleOwner, Created: t.Created}}
}

func (n *Notify) newTopic(who Who, s TopicSpec) Topic {
	now := n.now()
	t := Topic{
		ID: topicPrefix + rand.Text(), Name: s.Name, Title: s.Title, Description: s.Description, Owner: s.Owner, Visibility: s.Visibility,
		Status: s.Status, Retention: s.Retention, AckPolicy: s.AckPolicy, Escalation: s.Escalation, Sources: s.Sources, Devices: s.Devices,
		Template: s.Template, Version: 1, Created: now, Updated: now,
	}
	if len(t.Escalation.Steps) > 0 {
		t.Escalation.Named = now
	}
	if t.Owner == "" || !who.Admin {
		t.Owner = who.User
	}
	if t.Visibility == "" {
		t.Visibility = Internal
	}
	if t.Status == "" {
		t.Status = Active
	}
	if t.Retention == 0 {
		t.Retention = defaultRetention
	}
	if t.AckPolicy == "" {
		t.AckPolicy = AckAny
	}
	return t
}

// ChangeTopic changes a topic and returns it: its owners may, and admins; only admins give
// it to another owner. NotFound, Forbidden, Invalid, or Conflict for a name that is taken.
func (n *Notify) ChangeTopic(ctx context.Context, who Who, ref string, c TopicChange) (t Topic, err error) {
	err = n.change(ctx, func(ctx context.Context) error {
		before, err := n.findFor(who, ref, RoleOwner)
		if err != nil {
			return err
		}
		if err := precondition.Check(ctx, before); err != nil {
			return err
		}
		if c.Owner != nil && *c.Owner != before.Owner && !who.Admin {
			return muster.Errorf(muster.Forbidden, "only an admin gives a topic to another owner")
		}
		t = c.apply(before)
		t.Escalation.Named = before.Escalation.Named
		if !reflect.DeepEqual(before.Escalation, t.Escalation) {
			t.Escalation.Named = n.now()
		}
		if err := n.checkTopic(&t); err != nil {
			return err
		}
		if reflect.DeepEqual(before, t) {
			audit.Nothing(ctx)
			return nil
		}
		if other, ok := n.topic(t.Name); ok && other.ID != t.ID {
			return muster.Errorf(muster.Conflict, "there is a topic %s already", t.Name)
		}
		t.Version, t.Updated = before.Version+1, n.now()
		if err := n.putTopic(ctx, "topic.update", &before, t); err != nil {
			return err
		}
		n.seenOtherwise(&before, &t)
		return nil
	})
	if err != nil {
		return Topic{}, err
	}
	return t, nil
}

// seenOtherwise has the inboxes be counted anew of those who see a topic no more, or again.
func (n *Notify) seenOtherwise(before, after *Topic) {
	switch {
	case before.Visibility != after.Visibility:
		n.inbox.Recount()
	case before.Owner != after.Owner:
		n.inbox.Recount(Subject(before.Owner), Subject(after.Owner))
	}
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func (c TopicChange) apply(t Topic) Topic {
	set(&t.Name, c.Name)
	set(&t.Title, c.Title)
	set(&t.Description, c.Description)
	set(&t.Owner, c.Owner)
	set(&t.Devices, c.Devices)
	set(&t.Visibility, c.Visibility)
	set(&t.Status, c.Status)
	set(&t.Retention, c.Retention)
	set(&t.AckPolicy, c.AckPolicy)
	set(&t.Escalation, c.Escalation)
	set(&t.Sources, c.Sources)
	set(&t.Template, c.Template)
	return t
}

// putTopic is called in turn.
func (n *Notify) putTopic(ctx context.Context, action string, before *Topic, t Topic, members ...Member) error {
	var was any
	if before != nil {
		was = viewOf(before)
	}
	audit.Note(ctx, action, "topics/"+t.ID, was, viewOf(&t))
	if err := n.store.PutTopic(ctx, t, members...); err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if before != nil {
		delete(n.names, before.Name)
	}
	n.topics[t.ID], n.names[t.Name] = t, t.ID
	for _, m := range members {
		n.keepMember(m)
	}
	return nil
}

// DeleteTopic takes a topic away with its subscriptions; its notifications go soon after, and nothing of them
// goes out any more to people and devices.
func (n *Notify) DeleteTopic(ctx context.Context, who Who, ref string) error {
	return n.change(ctx, func(ctx context.Context) error {
		t, err := n.findFor(who, ref, RoleOwner)
		if err != nil {
			return err
		}
		if t.ID == SystemTopic {
			return muster.Errorf(muster.Forbidden, "Muster's own topic stays")
		}
		if err := precondition.Check(ctx, t); err != nil {
			return err
		}
		audit.Note(ctx, "topic.delete", "topics/"+t.ID, viewOf(&t), nil)
		if err := n.store.DeleteTopic(ctx, t.ID); err != nil {
			return err //nolint:wrapcheck // the store says what it was doing
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.topics, t.ID)
		delete(n.names, t.Name)
		delete(n.members, t.ID)
		select {
		case n.deleted <- struct{}{}:
		default: // RunTrim will look
		}
		return nil
	})
}

// Members returns who has a role in a topic, in bytewise order of principal. Members may
// see it, and admins.
func (n *Notify) Members(who Who, ref string) ([]Member, error) {
	t, err := n.findFor(who, ref, RoleSubscriber)
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	out := make([]Member, 0, len(n.members[t.ID]))
	for _, m := range n.members[t.ID] {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Principal, b.Principal) })
	return out, nil
}

// PutMember gives a user or an API key a role in a topic.
func (n *Notify) PutMember(ctx context.Context, who Who, ref, principal string, role Role) (m Member, err error) {
	if rank(role) == 0 {
		return Member{}, muster.InvalidAt("role", "there is no role %.40q", role)
	}
	err = n.change(ctx, func(ctx context.Context) error {
		t, err := n.findFor(who, ref, RoleOwner)
		if err != nil {
			return err
		}
		if _, ok := n.options.People.Person(principal); !ok && (!strings.HasPrefix(principal, "key_") || len(principal) > maxPrincipal || !oneLine(principal)) {
			return muster.InvalidAt("principal", "a member is the id of a user or of an API key")
		}
		n.mu.RLock()
		old, had := n.members[t.ID][principal]
		count := len(n.members[t.ID])
		n.mu.RUnlock()
		if !had && count >= MaxMembers {
			return muster.Errorf(muster.Busy, "the topic has %d members already", MaxMembers)
		}
		m = Member{Topic: t.ID, Principal: principal, Role: role, Created: n.now()}
		var was any
		if had {
			was, m.Created = memberView{old.Principal, old.Role}, old.Created
		}
		audit.Note(ctx, "topic.member.put", "topics/"+t.ID, was, memberView{principal, role})
		if err := n.store.PutMember(ctx, m); err != nil {
			return err //nolint:wrapcheck // the store says what it was doing
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.keepMember(m)
		return nil
	})
	if err == nil {
		n.inbox.Recount(Subject(principal))
	}
	return m, err
}

// DeleteMember takes a role away: an owner of the topic may, and everybody his own.
func (n *Notify) DeleteMember(ctx context.Context, who Who, ref, principal string) error {
	err := n.change(ctx, func(ctx context.Context) error {
		least := RoleOwner
		if principal == who.ID || principal == who.User {
			least = RoleSubscriber
		}
		t, err := n.findFor(who, ref, least)
		if err != nil {
			return err
		}
		n.mu.RLock()
		old, had := n.members[t.ID][principal]
		n.mu.RUnlock()
		if !had {
			return muster.Errorf(muster.NotFound, "the topic has no such member")
		}
		audit.Note(ctx, "topic.member.delete", "topics/"+t.ID, memberView{old.Principal, old.Role}, nil)
		if err := n.store.DeleteMember(ctx, t.ID, principal); err != nil {
			return err //nolint:wrapcheck // the store says what it was doing
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.members[t.ID], principal)
		return nil
	})
	if err == nil {
		n.inbox.Recount(Subject(principal))
	}
	return err
}

// memberView is a member in the audit log.
type memberView struct {
	Principal string `json:"principal"`
	Role      Role   `json:"role"`
}

// topicView is a topic in the audit log.
type topicView struct {
	Name        string     `json:"name"`
	Title       string     `json:"title,omitempty"`
	Description string     `json:"description,omitempty"`
	Owner       string     `json:"owner"`
	Visibility  Visibility `json:"visibility"`
	Status      Status     `json:"status"`
	Retention   string     `json:"retention"`
	AckPolicy   AckPolicy  `json:"ack_policy"`
	Escalation  Escalation `json:"escalation"`
	Sources     []Source   `json:"sources,omitempty"`
	Devices     string     `json:"devices,omitempty"`
	Template    Template   `json:"template"`
	Version     int64      `json:"version"`
}

func viewOf(t *Topic) topicView {
	return topicView{
		t.Name, t.Title, t.Description, t.Owner, t.Visibility, t.Status, t.Retention.String(), t.AckPolicy, t.Escalation, t.Sources,
		t.Devices, t.Template, t.Version,
	}
}
