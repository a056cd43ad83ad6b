// Package feed is what happens in Muster, told to third parties: a catalogue of event
// types, and a log of events in the order in which they were committed.
//
// Rooms note an event with Note right before they store what it is about; the store
// writes it in the same transaction and gives it the next number, so that no event is
// lost, doubled or out of order. Feed hands committed events to those who follow it
// (the live gateway, server-sent events, webhooks), from memory or, for those who are
// behind, from the store. It is called by the rooms, the store and the server, and
// never waits for a follower.
package feed
