// Package lifecycle owns long-lived goroutines: a Group runs named loops, restarts
// one that panics or fails with a backoff, counts that, and waits for all of them
// when it stops. Every room uses it; it imports only the standard library.
package lifecycle
