// Package traffic counts who is connected and what passes: connections and messages of
// each user, API key and service account, and their sums.
//
// It owns the counters. The broker, the live gateway and the API open a Conn for each
// connection and count on it, with one atomic addition for a message; the server reads
// all of them for the System page, /metrics and the live channel of the system. What an
// account has counted stays when its connections end, so that sums never shrink.
//
// It knows nothing of sockets, rights or devices, keeps nothing on disk, starts no
// goroutine and never waits.
package traffic
