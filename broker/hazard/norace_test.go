//go:build !race

package hazard

const slowdown = 1
