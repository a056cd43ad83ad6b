package catalog

import (
	"fmt"
	"slices"
	"strings"

	"muster"
	"muster/firmware"
	"muster/firmware/image"
)

// checkFiles says whether the images that a manifest names are here, and are by their bytes
// what it says: a Conflict when not.
func (c *Catalog) checkFiles(m *firmware.Manifest, here map[string]Artifact) error {
	for i := range m.Files {
		f := &m.Files[i]
		a, ok := here[f.SHA256]
		if !ok {
			return muster.Errorf(muster.Conflict, "the image %s is not here: upload it first", f.Filename)
		}
		if a.Size != f.Size {
			return muster.Errorf(muster.Conflict, "the image %s has %d bytes, and not %d", f.Filename, a.Size, f.Size)
		}
		if err := c.onDisk(f); err != nil {
			return err
		}
		if err := says(m, f, &a.Image); err != nil {
			return err
		}
	}
	return nil
}

// onDisk says whether an image's bytes are here too: a directory may have been put back from a backup.
func (c *Catalog) onDisk(f *firmware.File) error {
	if c.share != nil { // what is an artifact was shared before, and comes to the disk of who asks for it
		return nil
	}
	file, err := c.blobs.File(f.SHA256)
	if muster.KindOf(err) == muster.NotFound && err != nil {
		return muster.Errorf(muster.Conflict, "the bytes of the image %s are not on this server's disk: upload it again", f.Filename)
	}
	if err != nil {
		return err //nolint:wrapcheck // it says what is wrong
	}
	info, err := file.Stat()
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("look at the image %s: %w", f.Filename, err)
	}
	if info.Size() != f.Size {
		return muster.Errorf(muster.Conflict, "the image %s has %d bytes on disk, and not %d", f.Filename, info.Size(), f.Size)
	}
	return nil
}

// says compares what an image says of itself with what the manifest does, as far as it says
// anything.
func says(m *firmware.Manifest, f *firmware.File, info *image.Info) error {
	switch {
	case info.Damage != "" && f.Format == image.Raw: // who made it says that it only looks so
		return nil
	case info.Damage != "":
		return muster.Errorf(muster.Conflict, "the image %s is damaged: it is %s by its bytes, and %s", f.Filename, info.Format, info.Damage)
	}
	if f.Format != "" && f.Format != info.Format {
		return muster.Errorf(muster.Conflict, "the image %s is %s by its bytes, and not %s", f.Filename, info.Format, f.Format)
	}
	if info.Security != nil && *info.Security > m.Security {
		return muster.Errorf(muster.Conflict, "the image %s has the security version %d, above the manifest's %d", f.Filename, *info.Security, m.Security)
	}
	if len(m.Files) == 1 { // of several each may have a version of its own
		want, err := firmware.ParseVersion(m.Version)
		if err != nil {
			return err
		}
		if has, ok := firmware.Reported(info.Version); ok && want.Compare(has) != 0 {
			return muster.Errorf(muster.Conflict, "the image %s says that it is version %s, and the manifest %s", f.Filename, info.Version, m.Version)
		}
	}
	return fits(m, f, info)
}

// fits says whether the hardware revisions that a manifest names are among those that an image
// for SWUpdate does. Other formats name none, or families, which are no revisions.
func fits(m *firmware.Manifest, f *firmware.File, info *image.Info) error {
	if info.Format != image.SWU || len(info.Hardware) == 0 {
		return nil
	}
	if slices.ContainsFunc(info.Hardware, func(h string) bool { return strings.HasPrefix(h, "#RE:") }) {
		return nil // a pattern, which SWUpdate reads in its own way
	}
	for _, h := range m.Hardware {
		for _, rev := range h.Revisions {
			if !slices.Contains(info.Hardware, rev) {
				return muster.Errorf(muster.Conflict, "the image %s is not for the revision %s of %s, which the manifest names", f.Filename, rev, h.Board)
			}
		}
	}
	return nil
}

// unique says whether no release of the same version is for some of the same hardware.
func unique(m *firmware.Manifest, others []Release) error {
	for i := range others {
		o, err := firmware.ParseManifest(others[i].Manifest)
		if err != nil {
			return fmt.Errorf("read the manifest of release %s: %w", others[i].ID, err)
		}
		if o.Type == m.Type && overlap(o.Hardware, m.Hardware) {
			return muster.Errorf(muster.Conflict, "the version %s of %s is there already, for some of the same hardware: release %s", m.Version, m.Product, others[i].ID)
		}
	}
	return nil
}

// overlap says whether there is hardware that both are for.
func overlap(a, b []firmware.Hardware) bool {
	if len(a) == 0 || len(b) == 0 { // for all
		return true
	}
	for _, x := range a {
		for _, y := range b {
			if x.Board != y.Board {
				continue
			}
			if len(x.Revisions) == 0 || len(y.Revisions) == 0 || slices.ContainsFunc(x.Revisions, func(r string) bool { return slices.Contains(y.Revisions, r) }) {
				return true
			}
		}
	}
	return false
}
