//go:build race

package command_test

// Under the race detector everything is twenty times as slow, so that there is less of it.
const (
	scale  = 10 // a hundredth of the fleet in the test of a large job
	checks = "15"
)
