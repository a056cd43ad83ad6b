// Package delta makes patches, by which a device makes a new image of the one it has: zstd frames
// whose dictionary is the old image, for what is 100 times smaller than the compressed image when
// little changed.
//
// It owns what a patch is, when one is worth its trouble, the preparing of patches (one at a time,
// with a part of one processor, kept in a directory of bounded size with an index beside), and which
// patches a release has for a device, by the version that it reports. Who plans offers asks whether
// one waits for its patch, and offers name what is ready. A patch is never trusted for itself: the
// signed manifest has the digest of the image that it makes.
//
// It offers nothing to devices, and sends nothing.
package delta
