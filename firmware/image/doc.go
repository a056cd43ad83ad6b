// Package image says what a firmware image is by its bytes: its format and, where the format
// has them, its version, hardware and security version.
//
// It is called for every upload, and reads the beginning and the end of the image alone,
// so that one of any size costs the same. What it finds is compared with
// what the release declares; it decides nothing, checks no signature, and trusts no length
// or offset that an image states.
package image
