// Package topic owns what the broker knows about topics and nothing else: the
// grammar of topic names and filters (MQTT 5, sections 4.7 and 4.8), the Index that
// finds the subscriptions of a message, and the Tree of retained messages.
//
// The broker calls it: at CONNECT and SUBSCRIBE for the checks and the rights, once
// per published message for Index.Match, and for every retained message. It decides
// no right, knows no session beyond the owner that it was given, and never does
// I/O, starts a goroutine or calls back under a lock. Strings that are handed in may
// lie in a read buffer: what is kept is copied.
package topic
