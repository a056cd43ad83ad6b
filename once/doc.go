// Package once keeps what requests with an Idempotency-Key were answered, for 24 hours, so that one that is sent
// again gets the same answer and does nothing more.
//
// The API asks it before and tells it after each such request. That a request was done is written by the control
// store in the transaction of its first change (Of, in its context), so that a crash never leaves a change without
// it; the answer follows when there is one. Answers are sealed with a key made of the caller's own credential: the
// database alone opens none. It knows no HTTP and never does a request itself.
package once
