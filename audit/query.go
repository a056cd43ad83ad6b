package audit

import "muster"

// Query chooses records. Zero fields choose all.
type Query struct {
	Actor  string        // id
	Object string        // the thing, and all below it: "devices/d1" has "devices/d1/credentials/c"
	Action string        // as records have it; behind a ! all others
	From   muster.Micros // at or after
	To     muster.Micros // before
	Before int64         // seq before which to go on; 0 for the newest
	Limit  int           // 1 to 1000
}
