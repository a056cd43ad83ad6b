// Package image says what a firmware image is by its bytes: its format and, where the format
// has them, its version, hardware and security version; and whether the lengths, checksums and
// digests hold that the image has of itself.
//
// It is called for every upload, and by who makes a manifest. What it finds is compared with
// what the release declares; it decides nothing, checks no signature, and trusts no length
// or offset that an image states.
package image
