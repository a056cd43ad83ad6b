// Package chat sends events to chat services that are named by a shoutrrr URL
// (https://shoutrrr.nickfedor.com): one request, in plain words, for one event.
//
// The server puts its Sender before that of webhooks: the delivery of events and the test
// button call Deliver, the registry of webhooks Check. What a service URL means and how a
// service is told is the shoutrrr library's, which is part of binaries that were built with
// the tag shoutrrr only. The library itself never sends: it follows no context, tries again
// on its own, and takes some failures for success; so the request goes out by notify/webhook,
// whose guard judges each address that is dialled. It queues nothing, never tries again,
// never logs, and tells no service URL.
package chat
