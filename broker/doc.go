// Package broker is MQTT in and out: listeners, connections, sessions, their queues,
// the routing of messages, and rights. What devices publish for Muster goes to the
// Sink; the rest is delivered like any broker does. It writes down what must survive
// through broker/journal. The server starts it, api shows its clients. It never
// looks into a payload and never asks a database.
package broker
