package twin

import (
	"muster"
)

// document is one document in memory. It never changes; nil is one that never was.
type document struct {
	text    string
	version int64
	at      []muster.Micros // as in Document
}

func (d *document) body() string {
	if d == nil {
		return empty
	}
	return d.text
}

func (d *document) vers() int64 {
	if d == nil {
		return 0
	}
	return d.version
}

func (d *document) row() Document {
	if d == nil {
		return Document{}
	}
	return Document{Text: d.text, Version: d.version, At: d.at}
}

// next returns the document that follows d with another text: the times of members that
// stay as they are are kept.
func (d *document) next(text string, version int64, now muster.Micros) *document {
	was := make(map[string]int) // where each member stood
	var values []string
	for key, value := range objectMembers(d.body()) {
		was[key] = len(values)
		values = append(values, value)
	}
	out := &document{text: text, version: version}
	for key, value := range objectMembers(text) {
		at := now
		if i, ok := was[key]; ok && values[i] == value && i < len(d.at) {
			at = d.at[i]
		}
		out.at = append(out.at, at)
	}
	return out
}

// keyTimes calls yield for each top-level member of d.
func (d *document) keyTimes(yield func(key string, at muster.Micros)) {
	if d == nil {
		return
	}
	i := 0
	for key := range objectMembers(d.text) {
		if i < len(d.at) {
			yield(unquote(`"`+key+`"`), d.at[i])
		}
		i++
	}
}

// loaded checks a stored document and returns it as memory has it.
func loaded(d Document) (*document, error) {
	if d.Version == 0 {
		return nil, nil //nolint:nilnil // nil is the document that never was
	}
	n, err := parse(d.Text, 0)
	if err != nil {
		return nil, err
	}
	if n.text() != d.Text {
		return nil, muster.Errorf(muster.Invalid, "the document is not in canonical form")
	}
	return &document{text: d.Text, version: d.Version, at: d.At}, nil
}

// base is the merge of the levels above the device, for all devices of one profile and
// the same groups. It never changes.
type base struct {
	key     string // see levels.key
	levels  []levelDocument
	version int64 // the newest of the levels'
	root    node
	text    string
}

type levelDocument struct {
	Level
	*document
}

// twin is one device's twin. It never changes.
type twin struct {
	created   muster.Micros // the device's
	version   int64         // of effective, 0 while there was none
	base      *base         // what effective was made from
	own       *document     // the device's own level
	effective string        // shares base.text when own has nothing
	reported  *document
	differs   int // paths in which reported is not what effective says
}

// exists says whether there is anything to keep.
func (t *twin) exists() bool { return t.version > 0 || t.reported != nil }

// derived is a twin with what is computed beside it.
type derived struct {
	twin
	diverged []string
}

// derive returns t with b below its own level, compared anew. bump gives a version when
// the effective document is another and no level's version says so: the device then has
// another profile or other groups.
func (t twin) derive(b *base, bump func() int64) (derived, error) {
	root, text := b.root, b.text
	if own := t.own.body(); own != empty {
		n, err := parse(own, 0)
		if err != nil {
			return derived{}, err
		}
		root = merge(b.root, n)
		text = root.text()
		if text == t.effective {
			text = t.effective // the old memory
		}
	}
	switch newest := max(b.version, t.own.vers()); {
	case newest > t.version:
		t.version = newest
	case text != t.effective && t.version > 0:
		t.version = bump()
	}
	t.base, t.effective = b, text
	return t.compare(&root)
}

// compare returns t with its differences; desired is its effective document.
func (t twin) compare(desired *node) (derived, error) {
	reported, err := parseOrEmpty(t.reported.body())
	if err != nil {
		return derived{}, err
	}
	d := derived{twin: t}
	d.diverged, d.differs = diverged(desired, &reported)
	return d, nil
}

func (d *derived) row(id muster.DeviceID) Row {
	return Row{
		Device: id, Created: d.created, Version: d.version, Effective: d.effective,
		Desired: d.own.row(), Reported: d.reported.row(),
		Converged: d.differs == 0, Diverged: d.diverged, DivergedCount: d.differs,
	}
}
