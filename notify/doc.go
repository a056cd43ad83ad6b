// Package notify tells third parties what happens: so far by webhooks. It owns which
// webhooks there are, which events each wants, and the secrets that sign them.
//
// The API changes webhooks and tests them; whoever delivers events asks Matching for the
// webhooks of each, and Keys for what signs it. Package store/control keeps them, and
// notify/webhook sends one attempt. It knows no HTTP and no SQL, keeps secrets sealed,
// and shows each but once.
package notify
