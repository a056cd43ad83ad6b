// Package hooks is the registry of webhooks: which there are, which events each wants,
// and the secrets that sign them.
//
// The API changes webhooks and tests them; the fan-out of events asks Matching for the
// webhooks of each, and the webhook channel Keys for what signs it. Package store/control
// keeps them, and notify/webhook sends one attempt. It knows no HTTP and no SQL, keeps
// secrets sealed, and shows each but once.
package hooks
