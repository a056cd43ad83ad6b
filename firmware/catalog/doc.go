// Package catalog is the catalogue of firmware: the images that were uploaded, the releases
// made of them, the public keys that releases are signed with, and how many of those must
// have signed.
//
// It owns what may become of each: an image comes in piece by piece and is kept once by its
// digest, a release is a draft until it is published and stays as it is from then on, a key
// is revoked for ever. The API and the verbs of the binary change it; who offers firmware to
// devices asks Offerable before each round of offers. Images lie in package firmware/blob, all else in the
// control store, where every decision is made in the transaction that keeps it, one at a time.
//
// It holds no private key and no image in memory, and offers nothing to a device itself.
package catalog
