// Package target is what rollouts know of devices: whether a release is for one, whether it
// can be reached, how often it failed of late.
//
// It owns what of that is not kept elsewhere: who asked just now, and the failures of a
// day. firmware/director asks it within transactions, so that it answers from memory; the
// server refreshes it before each round. It never decides, and changes no device.
package target
