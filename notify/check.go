package notify

import (
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"muster"
	"muster/feed"
)

const (
	maxTopicName   = 64   // bytes
	maxTopicTitle  = 200  // bytes
	maxDescription = 1000 // bytes
	maxQuery       = 4096 // bytes
	maxTemplate    = 16 << 10
	maxLink        = 2048 // bytes
	maxLabel       = 60   // bytes
	maxStepTo      = 100
	maxChannels    = 10
	maxTypes       = 50
	maxRepeat      = 100
	minRetention   = time.Hour
	maxRetention   = 5 * 366 * 24 * time.Hour
	minStep        = time.Second
	maxStep        = 7 * 24 * time.Hour
)

// checkTopic refuses what can not be a topic.
func (n *Notify) checkTopic(t *Topic) error {
	if err := checkName(t.Name); err != nil {
		return err
	}
	switch {
	case len(t.Title) > maxTopicTitle || !oneLine(t.Title):
		return muster.InvalidAt("title", "the title is not one line of at most %d bytes", maxTopicTitle)
	case len(t.Description) > maxDescription || !text(t.Description):
		return muster.InvalidAt("description", "the description is not plain text of at most %d bytes", maxDescription)
	case t.Visibility != Private && t.Visibility != Internal:
		return muster.InvalidAt("visibility", "there is no visibility %.40q", t.Visibility)
	case t.Status != Active && t.Status != Inactive:
		return muster.InvalidAt("status", "there is no status %.40q", t.Status)
	case t.Retention < minRetention || t.Retention > maxRetention:
		return muster.InvalidAt("retention_s", "the retention is not between an hour and five years")
	case t.AckPolicy != AckNone && t.AckPolicy != AckAny && t.AckPolicy != AckAll:
		return muster.InvalidAt("ack_policy", "there is no ack policy %.40q", t.AckPolicy)
	}
	if t.Owner != "" {
		if _, ok := n.options.People.Person(t.Owner); !ok {
			return muster.InvalidAt("owner", "the owner is not the id of a user")
		}
	}
	if err := n.checkQuery("devices", t.Devices); err != nil {
		return err
	}
	if err := n.checkEscalation(t); err != nil {
		return err
	}
	if err := n.checkSources(t.Sources); err != nil {
		return err
	}
	return muster.At(checkTemplate(t.Template), "template")
}

func checkName(name string) error {
	fits := name != "" && len(name) <= maxTopicName
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		fits = fits && (alnum || i > 0 && strings.ContainsRune("._-", r))
	}
	if !fits {
		return muster.InvalidAt("name", "a topic's name is 1 to %d of a-z, 0-9, '.', '_' and '-', and begins with a letter or a digit", maxTopicName)
	}
	if strings.HasPrefix(name, topicPrefix) {
		return muster.InvalidAt("name", "names do not begin with %s, as ids do", topicPrefix)
	}
	return nil
}

func (n *Notify) checkQuery(what, q string) error {
	if q == "" {
		return nil
	}
	if !text(q) {
		return muster.InvalidAt(what, "%s is not plain text", what)
	}
	if len(q) > maxQuery {
		return muster.InvalidAt(what, "%s has %d bytes, at most %d are allowed", what, len(q), maxQuery)
	}
	_, err := n.options.Devices.Compile(q)
	return muster.At(err, what)
}

func (n *Notify) checkEscalation(t *Topic) error {
	e := t.Escalation
	switch {
	case len(e.Steps) > MaxSteps:
		return muster.InvalidAt("escalation", "an escalation has at most %d steps", MaxSteps)
	case e.Repeat < 0 || e.Repeat > maxRepeat || e.Repeat > 0 && len(e.Steps) == 0:
		return muster.InvalidAt("escalation", "the last step is repeated 0 to %d times", maxRepeat)
	case len(e.Steps) > 0 && t.AckPolicy == AckNone:
		return muster.InvalidAt("escalation", "a topic whose notifications are not acked can not escalate")
	}
	for i, s := range e.Steps {
		if s.After < minStep || s.After > maxStep {
			return muster.InvalidAt("escalation", "step %d comes between a second and seven days after the one before", i+1)
		}
		if len(s.To) == 0 || len(s.To) > maxStepTo || len(s.Channels) > maxChannels {
			return muster.InvalidAt("escalation", "step %d tells 1 to %d, over at most %d channels", i+1, maxStepTo, maxChannels)
		}
		for _, to := range s.To {
			if err := n.checkSubject(Subject(to)); err != nil {
				return muster.At(err, "escalation")
			}
		}
		for _, c := range s.Channels {
			if err := checkChannel(c); err != nil {
				return muster.At(err, "escalation")
			}
		}
	}
	return nil
}

func (n *Notify) checkSources(list []Source) error {
	if len(list) > MaxSources {
		return muster.InvalidAt("sources", "a topic has at most %d sources", MaxSources)
	}
	for _, s := range list {
		if err := n.checkSource(&s); err != nil {
			return muster.At(err, "sources")
		}
	}
	return nil
}

func (n *Notify) checkSource(s *Source) error {
	if len(s.Types) == 0 || len(s.Types)+len(s.Clears) > maxTypes {
		return muster.Errorf(muster.Invalid, "a source names 1 to %d types of events", maxTypes)
	}
	for _, t := range append(append([]string{}, s.Types...), s.Clears...) {
		if !feed.KnownFilter(t) {
			return muster.Errorf(muster.Invalid, "there is no type of event %.60q", t)
		}
		if strings.HasPrefix(t, "notification.") || strings.HasPrefix(t, "delivery.") || t == "*" {
			return muster.Errorf(muster.Invalid, "a notification can not be the source of another")
		}
	}
	if s.Severity < Info || s.Severity > Critical {
		return muster.Errorf(muster.Invalid, "there is no such severity")
	}
	if len(s.Title) > maxTemplate || !text(s.Title) {
		return muster.Errorf(muster.Invalid, "a title is plain text of at most %d bytes", maxTemplate)
	}
	if _, err := parseTemplate("title", s.Title); err != nil {
		return err
	}
	if err := n.checkQuery("q", s.Query); err != nil {
		return err
	}
	return nil
}

// checkSubject takes who is there: a user, or a device.
func (n *Notify) checkSubject(s Subject) error {
	if id, ok := s.Device(); ok {
		if !n.hasDevice(id) {
			return muster.Errorf(muster.Invalid, "there is no such device")
		}
		return nil
	}
	if _, ok := n.options.People.Person(string(s)); !ok {
		return muster.Errorf(muster.Invalid, "there is no such user")
	}
	return nil
}

// The channels that a subscription may name.
const (
	ChannelEmail = "email"
	ChannelMQTT  = "mqtt"
)

func checkChannel(name string) error {
	if name != ChannelEmail && name != ChannelMQTT {
		return muster.Errorf(muster.Invalid, "there is no channel %.40q", name)
	}
	return nil
}

// checkLink takes http and https only: what people click on.
func checkLink(s string) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxLink || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || !oneLine(s) {
		return muster.Errorf(muster.Invalid, "a link is http:// or https:// with a host, without a password, of at most %d bytes", maxLink)
	}
	return nil
}

// oneLine says whether s is plain text on one line.
func oneLine(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' })
}

// text says whether s is plain text, on many lines maybe.
func text(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' })
}

// storable says whether s can be the text of an id or a name: PostgreSQL keeps no NUL, and
// asked for one it fails.
func storable(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}
