package hooks

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster"
	"muster/feed"
)

const (
	// MaxWebhooks is how many webhooks there may be.
	MaxWebhooks = 1000
	// MaxTypes is how many types and families one webhook may list.
	MaxTypes = 50

	maxURL         = 2048 // bytes
	maxDescription = 500  // bytes
	maxReason      = 200  // bytes
	maxTopic       = 64   // bytes of an id
	idPrefix       = "whk_"
)

// Webhook is an address that is told of events. It is changed by making a new one: its
// slices never change in place.
type Webhook struct {
	ID          string // "whk_..."
	URL         string // http or https, without user, password or fragment; or "shoutrrr:" and a service's name
	Description string
	Types       []string // "device.created", "device.*" or "*", in order
	Query       string   // of the devices whose events it wants, in the query language; empty for all events
	Secrets     []Secret // one or two, the newest first
	Disabled    bool
	Reason      string   // why Muster disabled it; empty when somebody did
	Topics      []string // of notification.* events those to these topics only, by id, in order; empty for all
	Owner       string   // who made it, as people know it
	OwnerID     string   // the user who did, or whose key it was; empty for none
	Version     int64    // of its registration, from 1: each change makes the next
	Created     muster.Micros
	Updated     muster.Micros
}

// Secret is a key that signs, sealed.
type Secret struct {
	Sealed  []byte
	Created muster.Micros
	Ends    muster.Micros // when it signs no more; 0 for the newest
}

// Spec is a webhook to be made.
type Spec struct {
	URL         string // as Webhook's, or "shoutrrr:" and a service URL, which is a secret
	Description string
	Types       []string
	Query       string
	Disabled    bool
	Topics      []string
	Owner       string
	OwnerID     string
}

// Change says what of a webhook is to be otherwise; what is nil stays.
type Change struct {
	URL         *string
	Description *string
	Types       []string
	Query       *string
	Topics      *[]string
	Disabled    *bool
	// If is asked with the webhook as it is, in turn: its error ends the change. May be nil.
	If func(Webhook) error
}

// apply returns w with the changes of c.
func (c Change) apply(w Webhook) Webhook {
	if c.URL != nil {
		w.URL = *c.URL
	}
	if c.Description != nil {
		w.Description = *c.Description
	}
	if c.Types != nil {
		w.Types = c.Types
	}
	if c.Query != nil {
		w.Query = *c.Query
	}
	if c.Topics != nil {
		w.Topics = *c.Topics
	}
	if c.Disabled != nil {
		w.Disabled, w.Reason = *c.Disabled, ""
	}
	return w
}

// check refuses what can not be a webhook, and puts its types in order.
func (w *Webhook) check() error {
	if err := checkURL(w.URL); err != nil {
		return err
	}
	if len(w.Description) > maxDescription || !plainText(w.Description) {
		return muster.InvalidAt("description", "the description is not plain text of at most %d bytes", maxDescription)
	}
	if len(w.Types) == 0 || len(w.Types) > MaxTypes {
		return muster.InvalidAt("types", `a webhook names 1 to %d types of events; "*" is all`, MaxTypes)
	}
	for i, t := range w.Types {
		if !feed.KnownFilter(t) {
			return muster.InvalidAt("types/"+strconv.Itoa(i), "there is no type of event %s", strconv.QuoteToASCII(t[:min(len(t), 60)]))
		}
	}
	if len(w.Topics) > MaxTypes || slices.ContainsFunc(w.Topics, func(s string) bool { return s == "" || len(s) > maxTopic || !plainText(s) }) {
		return muster.InvalidAt("topics", "a webhook names at most %d topics, each by an id of at most %d bytes", MaxTypes, maxTopic)
	}
	if len(w.Topics) == 0 {
		w.Topics = nil
	}
	topics := slices.Clone(w.Topics)
	slices.Sort(topics)
	w.Topics = slices.Compact(topics)
	types := slices.Clone(w.Types)
	slices.Sort(types)
	w.Types = slices.Compact(types)
	return nil
}

// checkURL takes what can be sent to. Where it leads is judged at each dial: a name may
// lead elsewhere by then.
func checkURL(s string) error {
	if _, chat := ChatOf(s); chat {
		return nil // it was taken apart when it was given
	}
	u, err := url.Parse(s)
	switch {
	case len(s) > maxURL:
		return muster.InvalidAt("url", "the URL has %d bytes, at most %d are allowed", len(s), maxURL)
	case err != nil || u.Hostname() == "" || u.Opaque != "" || !plainText(s) || strings.Contains(s, " "):
		return muster.InvalidAt("url", "the URL is not https://host/path")
	case u.Scheme != "https" && u.Scheme != "http":
		return muster.InvalidAt("url", "the URL does not begin with https:// or http://")
	case u.User != nil:
		return muster.InvalidAt("url", "the URL has a user or a password: the signature tells who sends")
	case u.Fragment != "" || strings.Contains(s, "#"):
		return muster.InvalidAt("url", "the URL has a fragment, which is never sent")
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return muster.InvalidAt("url", "the URL's port is not between 1 and 65535")
		}
	}
	return nil
}

func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
