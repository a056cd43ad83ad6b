// Package accounts knows who may use Muster besides devices: users with passwords,
// second factors and identities at OpenID providers, API keys with scopes, service
// accounts for MQTT, dashboard sessions, one-time links by mail, and the one-time set-up
// link. Keys, secrets, session and link tokens are random and stored as SHA-256 only,
// passwords as argon2id; the secret of a second factor is sealed.
//
// The API and the dashboard ask it at every request, the broker at CONNECT; it answers
// from memory. Every change is written through in one transaction with its record for
// the audit log, and counts at once: who loses a right is reported, so that open
// connections are cut. It knows no HTTP, SQL, MQTT or WebSocket, and sends no mail
// itself.
package accounts
