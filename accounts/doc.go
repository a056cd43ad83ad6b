// Package accounts knows who may use Muster besides devices: API keys with
// scopes, service accounts for MQTT, dashboard sessions, and the one-time set-up
// link. Keys, secrets and session tokens are random and stored as SHA-256 only.
//
// The API and the dashboard ask it at every request, the broker at CONNECT. It
// knows no HTTP, SQL, MQTT or WebSocket.
package accounts
