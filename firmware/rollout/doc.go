// Package rollout brings a release to devices in phases, and stops by itself.
//
// It owns what a rollout is and every decision about it: the table of a device's states
// (Next), who belongs to which phase (Plan.Place), who may be offered the release now and
// why not (Explain), when a failure stops everything (Step) and when the next phase begins
// (Advance). Stores call these inside their transactions, with the rows they hold locked,
// so that the concurrency cap is exact and a rollout stops in the transaction of the
// failure that stops it. The API, the broker and the DDI door feed it reports.
//
// It is pure: no clock, no store, no network, no goroutine, and nothing is kept in memory
// between two calls.
package rollout
