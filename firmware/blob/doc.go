// Package blob keeps images on disk by their SHA-256, once each, for ever the same.
//
// It owns the directory that it is given: what is being uploaded lies in uploads/, with how
// far it is and the state of its digests, so that an upload goes on after a cut or a restart
// without anything being read twice; what is whole lies in sha256/, read-only, and comes
// there by one rename after it is on the disk. Package firmware calls it, and the doors that
// serve images get plain files of it, which the kernel can send by itself.
//
// It knows no release and no right, holds no image in memory, and never changes one.
package blob
