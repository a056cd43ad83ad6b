package twin

import (
	"strconv"
	"strings"
)

// equal says whether two canonical texts are the same value: numbers by what they are
// worth, exactly (1.50 is 15e-1), all else as it is written.
func equal(a, b string) bool {
	if a == b {
		return true
	}
	if a == "" || b == "" {
		return false
	}
	switch {
	case isNumber(a[0]) && isNumber(b[0]):
		return sameNumber(a, b)
	case a[0] == '[' && b[0] == '[' || a[0] == '{' && b[0] == '{':
		return equalInside(a, b)
	}
	return false
}

func isNumber(c byte) bool { return c == '-' || '0' <= c && c <= '9' }

// equalInside compares two arrays or two objects piece by piece. What stands between
// values is the same in both when they are equal, and keys are in one order.
func equalInside(a, b string) bool {
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		if !isNumber(a[i]) || !isNumber(b[j]) {
			if a[i] != b[j] {
				return false
			}
			if a[i] != '"' {
				i, j = i+1, j+1
				continue
			}
			k, l := stringEnd(a, i), stringEnd(b, j)
			if a[i:k] != b[j:l] {
				return false
			}
			i, j = k, l
			continue
		}
		k, l := valueEnd(a, i), valueEnd(b, j)
		if !sameNumber(a[i:k], b[j:l]) {
			return false
		}
		i, j = k, l
	}
	return i == len(a) && j == len(b)
}

// decimal is a number as whole.fraction x 10^exp, without its sign.
type decimal struct {
	negative        bool
	whole, fraction string
	exp             int
}

func decimalOf(s string) decimal {
	var d decimal
	s, d.negative = strings.CutPrefix(s, "-")
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		d.exp, _ = strconv.Atoi(s[i+1:]) // at most MaxExponent, or 0 of many zeros
		s = s[:i]
	}
	d.whole, d.fraction, _ = strings.Cut(s, ".")
	return d
}

// digit returns the digit i of whole and fraction together.
func (d *decimal) digit(i int) byte {
	if i < len(d.whole) {
		return d.whole[i]
	}
	return d.fraction[i-len(d.whole)]
}

// significant returns where the digits from the first to the last that is not 0 are,
// and the power of ten of the first.
func (d *decimal) significant() (from, to, power int) {
	to = len(d.whole) + len(d.fraction)
	for from < to && d.digit(from) == '0' {
		from++
	}
	for to > from && d.digit(to-1) == '0' {
		to--
	}
	return from, to, len(d.whole) - 1 - from + d.exp
}

func (d *decimal) equal(o *decimal) bool {
	i, end, p := d.significant()
	j, otherEnd, q := o.significant()
	if i == end || j == otherEnd {
		return i == end && j == otherEnd // zero has no sign here
	}
	if end-i != otherEnd-j || p != q || d.negative != o.negative {
		return false
	}
	for ; i < end; i, j = i+1, j+1 {
		if d.digit(i) != o.digit(j) {
			return false
		}
	}
	return true
}

// sameNumber says whether two numbers are worth the same.
func sameNumber(a, b string) bool {
	x, y := decimalOf(a), decimalOf(b)
	return x.equal(&y)
}

// MaxDiverged is how many of the paths in which a twin differs are kept.
const MaxDiverged = 64

// diverged returns the first MaxDiverged paths, in order, at which reported is not what
// desired says, and how many there are. An empty object in desired asks for any object.
func diverged(desired, reported *node) (paths []string, count int) {
	differences(desired, reported, "", func(path func() string) {
		if count++; count <= MaxDiverged {
			paths = append(paths, path())
		}
	})
	return paths, count
}

// differences calls yield for every leaf of desired that reported does not have.
func differences(desired, reported *node, prefix string, yield func(path func() string)) {
	theirs := reported.members
	for i := range desired.members {
		m := &desired.members[i]
		for len(theirs) > 0 && theirs[0].key < m.key {
			theirs = theirs[1:]
		}
		var got *node
		if len(theirs) > 0 && theirs[0].key == m.key {
			got = &theirs[0].value
		}
		path := func() string { return joinPath(prefix, m.key) }
		if len(m.value.members) > 0 {
			if got == nil {
				got = &node{}
			}
			differences(&m.value, got, path(), yield)
			continue
		}
		if got == nil || !leafMatches(&m.value, got) {
			yield(path)
		}
	}
}

func leafMatches(desired, got *node) bool {
	if desired.isObject() || got.isObject() {
		return desired.isObject() && got.isObject()
	}
	return equal(desired.raw, got.raw)
}

// leaves calls yield for every value in n that is no object with members.
func leaves(n *node, prefix string, yield func(path string, leaf *node)) {
	for i := range n.members {
		m := &n.members[i]
		path := joinPath(prefix, m.key)
		if len(m.value.members) > 0 {
			leaves(&m.value, path, yield)
			continue
		}
		yield(path, &m.value)
	}
}

// Diff returns the paths of the leaves of next that are not the same in prev, and of
// those of prev that next does not have; each in order. Both are documents that this
// package gave out; nil stands for one that has nothing.
func Diff(prev, next []byte) (changed, removed []string, err error) {
	a, err := parseOrEmpty(string(prev))
	if err != nil {
		return nil, nil, err
	}
	b, err := parseOrEmpty(string(next))
	if err != nil {
		return nil, nil, err
	}
	before := make(map[string]*node)
	leaves(&a, "", func(path string, leaf *node) { before[path] = leaf })
	after := make(map[string]struct{}, len(before))
	leaves(&b, "", func(path string, leaf *node) {
		after[path] = struct{}{}
		if was, ok := before[path]; !ok || was.isObject() != leaf.isObject() || !equal(was.raw, leaf.raw) {
			changed = append(changed, path)
		}
	})
	leaves(&a, "", func(path string, _ *node) {
		if _, ok := after[path]; !ok {
			removed = append(removed, path)
		}
	})
	return changed, removed, nil
}

func parseOrEmpty(text string) (node, error) {
	if text == "" || text == empty {
		return node{}, nil
	}
	return parse(text, 0)
}
