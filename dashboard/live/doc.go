// Package live is the WebSocket gateway behind GET /api/v1/live, subprotocol
// muster.v1. It owns the sockets of the dashboards, what each of them watches,
// and the conflation of what they are told: of a device that changes a hundred
// times between two ticks a viewer hears once, with the newest values.
//
// The server mounts Gateway as an HTTP handler, opens its channels to the API's streams
// by Attach, and starts and stops it; ingest calls Observe after each commit, devices
// calls DevicesChanged. It reads state through the interfaces in Deps.
//
// The way of one change: Observe marks the watched rows (one atomic load when
// nobody watches); the tick loop reads each marked row once from its source,
// notes which of its fields changed, and marks the channels that show it; the connections
// have their turns in five phases of a tick, in which few goroutines (writers) go from one to
// the next and write one frame with all that is new to it. Nothing is queued by rate: what waits for a slow
// connection is a set of marks, bounded by what it shows. What all are written in a second is bounded too (pace).
//
// The channels system, tasks, task:{id}, here:{id} and events are polled instead: at each tick one
// number of their source says whether there is news, and the flush reads it. Of events a
// connection keeps its place in the feed and no queue: a slow one reads them from the
// store, and loses none that is kept. Of the inbox it keeps a place likewise, but each change
// wakes it at once: wakeLoop has those who are woken written to, few at a time (writers).
// What it wrote it reports to be marked as delivered. Figures of inboxes are counted by a
// loop, behind the ticks. Attach shows any channel but events to a stream of
// server-sent events, frame by frame as to a socket; docs/stream.md has the protocol.
//
// The channel dots shows all devices, a byte each. What is shown is a grid: the order of all
// devices, their states, and in which pass each changed last, made once for all viewers, who
// keep no more than the pass that they were told. dotsLoop looks at the order again when the
// registry changed. Frames between two passes are encoded once.
//
// It changes nothing but by the commands ack and pub. It never queries telemetry, never
// takes a token from a URL, and never blocks those who call Observe or change an inbox.
package live
