package topic

import (
	"slices"
	"sort"
)

// names are strings in bytewise order, in chunks, so that one is put in or taken out by
// moving few of them.
type names struct {
	chunks [][]string // none is empty
}

// chunkSize is the most names in a chunk: 4 KB of string headers.
const chunkSize = 256

// place is where a name is. The place behind the last one is {len(chunks), 0}.
type place struct{ chunk, at int }

// seek returns the place of the first name that is not less than key.
func (n *names) seek(key []byte) place {
	c := sort.Search(len(n.chunks), func(i int) bool {
		chunk := n.chunks[i]
		return chunk[len(chunk)-1] >= string(key)
	})
	if c == len(n.chunks) {
		return place{c, 0}
	}
	return place{c, n.within(c, 0, key)}
}

// seekFrom is seek for a key behind the name at p, which is most often near.
func (n *names) seekFrom(p place, key []byte) place {
	const near = 3
	chunk := n.chunks[p.chunk]
	if chunk[len(chunk)-1] < string(key) {
		return n.seek(key)
	}
	for i := p.at + 1; i <= p.at+near && i < len(chunk); i++ {
		if chunk[i] >= string(key) {
			return place{p.chunk, i}
		}
	}
	return place{p.chunk, n.within(p.chunk, p.at, key)}
}

// within returns the first place in a chunk, not before from, that is not less than key.
func (n *names) within(c, from int, key []byte) int {
	chunk := n.chunks[c][from:]
	return from + sort.Search(len(chunk), func(i int) bool { return chunk[i] >= string(key) })
}

// get returns the name at p, or false behind the last one.
func (n *names) get(p place) (string, bool) {
	if p.chunk == len(n.chunks) {
		return "", false
	}
	return n.chunks[p.chunk][p.at], true
}

func (n *names) after(p place) place {
	if p.at+1 < len(n.chunks[p.chunk]) {
		return place{p.chunk, p.at + 1}
	}
	return place{p.chunk + 1, 0}
}

// insert puts in a name that is not there.
func (n *names) insert(name string) {
	p := n.seek([]byte(name))
	if p.chunk == len(n.chunks) {
		n.push(name)
		return
	}
	chunk := slices.Insert(n.chunks[p.chunk], p.at, name)
	n.chunks[p.chunk] = chunk
	if len(chunk) <= chunkSize {
		return
	}
	upper := slices.Clone(chunk[chunkSize/2:])
	clear(chunk[chunkSize/2:])
	n.chunks[p.chunk] = chunk[:chunkSize/2]
	n.chunks = slices.Insert(n.chunks, p.chunk+1, upper)
}

// push puts a name behind the last one, into a new chunk when the last is full: names
// that come in order fill their chunks.
func (n *names) push(name string) {
	last := len(n.chunks) - 1
	if last < 0 || len(n.chunks[last]) == chunkSize {
		n.chunks = append(n.chunks, []string{name})
		return
	}
	n.chunks[last] = append(n.chunks[last], name)
}

// remove takes out a name that is there. Neighbours that together are half a chunk
// become one.
func (n *names) remove(name string) {
	p := n.seek([]byte(name))
	n.chunks[p.chunk] = slices.Delete(n.chunks[p.chunk], p.at, p.at+1)
	if len(n.chunks[p.chunk]) == 0 {
		n.chunks = slices.Delete(n.chunks, p.chunk, p.chunk+1)
		return
	}
	n.join(p.chunk)
	if p.chunk > 0 {
		n.join(p.chunk - 1)
	}
}

// join makes one chunk of c and the one behind it when both are small.
func (n *names) join(c int) {
	if c+1 >= len(n.chunks) || len(n.chunks[c])+len(n.chunks[c+1]) > chunkSize/2 {
		return
	}
	n.chunks[c] = append(n.chunks[c], n.chunks[c+1]...)
	n.chunks = slices.Delete(n.chunks, c+1, c+2)
}
