// Package archtest holds the laws of the house as checks over source text: which
// room may import which, which library has which home, that every package says
// what it is, and how long files and functions may be. Its own test runs them
// over the whole repository.
//
// It reads the files in this process, not through the go command: go test
// caches a result by the files the test itself opened, and would answer a breach
// with an old pass. It never looks outside the tree it is given.
package archtest
