// Package firmware is what is known of firmware: images, releases made of them, and the
// manifests that offline keys sign.
//
// It owns what a release is, what its manifest says, byte for byte, and what it takes for
// signatures to be enough. The API, the rollouts and the verbs of the binary call it.
// Private keys are not its server's business: what signs runs on the machine of who releases.
//
// It never installs anything, and trusts nothing that an image says of itself.
package firmware
