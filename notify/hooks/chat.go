package hooks

import (
	"strings"

	"muster"
)

const (
	// NoChats says that no chat service can be sent to, and what to do.
	NoChats = "this binary was built without chat services: build it with -tags shoutrrr"

	chatPrefix = "shoutrrr:"
)

// Chats knows the chat services that can be sent to.
type Chats interface {
	// Check reads a service URL and returns the name of its service, such as "discord".
	// Invalid, in words without a secret, when it is none of those that can be sent to.
	Check(serviceURL string) (service string, err error)
	// Has says whether a service can be sent to.
	Has(service string) bool
}

// ChatOf returns the chat service that a webhook's URL names, "discord" of
// "shoutrrr:discord"; ok is false of an address. The service URL itself, which is a secret,
// is kept sealed in the place of what signs.
func ChatOf(url string) (service string, ok bool) { return strings.CutPrefix(url, chatPrefix) }

// takeURL seals the service URL of h, which was before with another URL, or is new when
// before is empty, and leaves the service's name in its place.
func (w *Webhooks) takeURL(h *Webhook, before string) error {
	if h.URL == before {
		return nil
	}
	serviceURL, chat := ChatOf(h.URL)
	if _, was := ChatOf(before); before != "" && was != chat {
		return muster.InvalidAt("url", "an address is not changed into a chat service, nor back: make another webhook")
	}
	if !chat {
		return nil
	}
	if len(h.URL) > maxURL {
		return muster.InvalidAt("url", "the URL has %d bytes, at most %d are allowed", len(h.URL), maxURL)
	}
	if w.options.Chats == nil {
		return muster.InvalidAt("url", NoChats)
	}
	service, err := w.options.Chats.Check(serviceURL)
	if err != nil {
		return err //nolint:wrapcheck // it says what is wrong, and nothing more may be said
	}
	sealed, err := w.seal(h.ID, []byte(serviceURL), muster.MicrosOf(w.options.Now()))
	if err != nil {
		return err
	}
	h.URL, h.Secrets = chatPrefix+service, []Secret{sealed}
	return nil
}

// noChat is why h, a webhook that goes to a chat service, gets nothing; empty when it does.
func (w *Webhooks) noChat(h *Webhook) string {
	service, chat := ChatOf(h.URL)
	if !chat || w.options.Chats != nil && w.options.Chats.Has(service) {
		return ""
	}
	return NoChats
}
