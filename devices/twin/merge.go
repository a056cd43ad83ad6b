package twin

import (
	"muster"
)

// null is the value that deletes a member (RFC 7396).
const null = "null"

// merge applies patch to target (RFC 7396, section 2): members that are null are
// taken away, objects merged, all else replaced. patch is an object; target's members
// are not changed.
func merge(target, patch node) node {
	out := node{from: patch.from, members: make([]member, 0, len(target.members)+len(patch.members))}
	old := target.members // none when it is no object
	for _, m := range patch.members {
		for len(old) > 0 && old[0].key < m.key {
			out.members = append(out.members, old[0])
			old = old[1:]
		}
		var before node
		if len(old) > 0 && old[0].key == m.key {
			before, old = old[0].value, old[1:]
		}
		switch {
		case m.value.isObject():
			out.members = append(out.members, member{m.key, merge(before, m.value)})
		case m.value.raw != null:
			out.members = append(out.members, m)
		}
	}
	out.members = append(out.members, old...)
	return out
}

// patched returns the document text with the merge patch applied.
func patched(text string, patch []byte) (string, error) {
	p, err := parse(string(patch), 0)
	if err != nil {
		return "", err
	}
	old, err := parse(text, 0)
	if err != nil {
		return "", err
	}
	n := merge(old, p)
	return fitting(&n)
}

// whole returns the canonical text of a document that is given as a whole. A null in it
// is refused, since it means the same as a member that is not there.
func whole(doc []byte) (string, error) {
	n, err := parse(string(doc), 0)
	if err != nil {
		return "", err
	}
	if path, found := findNull(&n, ""); found {
		return "", muster.Errorf(muster.Invalid, "%s is null: leave a member out that is not to be there", shorten(path))
	}
	return fitting(&n)
}

func fitting(n *node) (string, error) {
	s := n.text()
	if len(s) > MaxDocument {
		return "", muster.Errorf(muster.TooLarge, "the document would have %d bytes, at most %d are allowed", len(s), MaxDocument)
	}
	return s, nil
}

func findNull(n *node, path string) (string, bool) {
	for i := range n.members {
		m := &n.members[i]
		if m.value.raw == null {
			return joinPath(path, m.key), true
		}
		if p, found := findNull(&m.value, joinPath(path, m.key)); found {
			return p, true
		}
	}
	return "", false
}

// shorten keeps a path that a message repeats readable.
func shorten(path string) string {
	const most = 120
	if len(path) <= most {
		return path
	}
	cut := most
	for cut > 0 && path[cut]&0xC0 == 0x80 { // not within a character
		cut--
	}
	return path[:cut] + "..."
}
