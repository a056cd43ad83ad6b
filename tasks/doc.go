// Package tasks runs requests that are too long for one answer: imports, exports, bulk
// changes and pictures.
//
// A task is of a registered Kind, which bounds how many run and wait at a time and how
// long one may take. It can be watched, waited for and cancelled; a panic ends that one
// only. A durable task is in the store before Start returns, goes on after a restart
// from the last step that was kept, and its result is a file in the room's directory
// until its time to live is over. A task that is not durable lives in memory and may be
// joined by all who ask for the same. Shared is a worker that lives while somebody
// watches it.
//
// The API starts, shows and cancels tasks; the server registers the kinds and runs the
// loop; the store writes steps in the transaction that they belong to. The package knows
// no HTTP and no SQL, and never decides who may do what beyond what an Owner sees.
package tasks
