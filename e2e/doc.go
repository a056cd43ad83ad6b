// Package e2e tests the muster binary from outside: it builds cmd/muster, starts
// it as a child process on free ports, and speaks to it as devices, browsers and
// operators do. It kills it without warning, takes its database away and holds it
// to its promises by reading that database itself.
//
// It holds tests only. It never reaches into the process under test; what it knows
// it knows from the wire, /metrics, the API and the database.
package e2e
