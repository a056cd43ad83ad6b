// Package journal is the durable memory of the broker's sessions: it owns the
// gathering of records into frames, their order, their replay after a restart
// and the cleaning of the log they lie in. What a record means is its caller's.
//
// The broker writes a record for whatever must be found again (a subscription, a
// queued message, a retained message, the id of an inbound QoS 2 message) and is
// told when it is durable; at start it has the records replayed. Records of all
// connections share frames, and one append is under way at a time, so that one
// fsync serves many.
//
// It never looks into a record, never makes a writer wait (Room does, when it is
// asked to), never reorders what was written, and never purges a record that is
// still somebody's newest.
package journal
