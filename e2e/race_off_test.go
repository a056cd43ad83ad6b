//go:build !race

package e2e

// watchedFlags is nil: nothing watches what is not built with the race detector.
var watchedFlags []string
