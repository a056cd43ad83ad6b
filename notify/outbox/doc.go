// Package outbox brings deliveries to their targets: what was committed is sent at least
// once over its channel, or is visibly dead. It owns the states of a delivery, the lanes
// and queues it waits in, and what follows from an attempt.
//
// Rooms that have something to send write deliveries in the transaction that makes them
// (package notify for notifications, notify/hooks for webhooks, accounts for mail).
// The dispatcher leases those that are due from the store, gives each to its Channel, and
// writes what came of it. It composes no message, knows no address, and no SQL, HTTP or SMTP.
package outbox
