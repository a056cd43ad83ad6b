package firmware

import (
	"github.com/Masterminds/semver/v3"

	"muster"
)

const maxVersion = 64 // bytes

// Version is a semantic version (semver.org, 2.0.0).
type Version struct{ v *semver.Version }

// ParseVersion reads the version of a release, which is written out: 1.4.0, not v1.4.
func ParseVersion(s string) (Version, error) {
	if len(s) > maxVersion {
		return Version{}, muster.InvalidAt("version", "version has %d bytes, at most %d are allowed", len(s), maxVersion)
	}
	v, err := semver.StrictNewVersion(s)
	if err != nil {
		return Version{}, muster.InvalidAt("version", "version is not a semantic version such as 1.4.0 or 1.4.0-rc.1")
	}
	return Version{v}, nil
}

// Reported reads what a device says of itself, which may have a v before it and parts left
// out; false when it is no version.
func Reported(s string) (Version, bool) {
	if len(s) > maxVersion {
		return Version{}, false
	}
	v, err := semver.NewVersion(s)
	return Version{v}, err == nil
}

// Compare orders versions as semver.org, 11, has it: below 0 when a is before b.
func (a Version) Compare(b Version) int { return a.v.Compare(b.v) }

// Is says whether what a device reports is this version. A build behind + is a part of it:
// a device with another build has other firmware.
func (a Version) Is(reported string) bool {
	v, ok := Reported(reported)
	return ok && a.v.Equal(v.v) && a.v.Metadata() == v.v.Metadata()
}

// String returns the version as it was written.
func (a Version) String() string { return a.v.Original() }
