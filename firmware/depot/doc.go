// Package depot keeps images in an object store that several servers share, with a directory of each
// as a cache of bounded size.
//
// It owns the order of the two: an image is in the store before anybody is told that it is there, comes
// back into the directory when it is asked for (into a temporary file, renamed once it has its digest),
// and leaves it when there is no room, the one that was not used longest first, and never one that is
// being read or that the store is not known to have. The catalogue of firmware takes it for a
// [blob.Store]; who serves images opens them here.
//
// It decides about no image whether it is to stay, and keeps none in memory.
package depot
