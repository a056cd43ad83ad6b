//go:build !race

package command_test

const (
	scale  = 100
	checks = "100"
)
