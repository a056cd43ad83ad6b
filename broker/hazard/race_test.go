//go:build race

package hazard

// slowdown is how much less a test asks for under the race detector.
const slowdown = 4
