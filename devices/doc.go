// Package devices is the registry: which devices exist, which credentials they
// have, what their profiles allow them beside their own topics, which gateway they
// belong to, and whether they are connected. The whole registry is held in memory and
// written through to its store, so that every right is decided without a
// database call.
//
// The API changes it, the broker asks it at CONNECT and tells it of connections.
// It knows no HTTP, SQL, MQTT or WebSocket.
package devices
