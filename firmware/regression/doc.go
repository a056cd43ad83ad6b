// Package regression says whether telemetry got worse with a release: it compares what devices
// that were updated measure with what those do that were not.
//
// It owns what a gate of a phase asks for, what one number a device's readings are, and the verdict.
// firmware/rollout has gates in its plans, the server reads the telemetry, and firmware/director
// acts on the verdict.
//
// It is pure: no clock, no store, and nothing is remembered between two calls.
package regression
