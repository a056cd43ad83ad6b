package devices

import (
	"strings"

	"muster"
)

// CheckSearch refuses a search that is meant as more than a part of an id or name,
// with the place of what is not understood: nothing is silently ignored.
func CheckSearch(q string) error {
	if at := strings.IndexAny(q, "<>=!"); at >= 0 {
		return muster.Errorf(muster.Invalid, "a search is a part of an id or name; %q at position %d is not understood", q[at], at+1)
	}
	return nil
}
