//go:build !shoutrrr

package chat

// Services returns the chat services that are built in: none, since this binary was built
// without the tag shoutrrr.
func Services() map[string]Compose { return nil }
