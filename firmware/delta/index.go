package delta

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"muster"
)

const (
	indexFile = "index.json"
	mostIndex = 16 << 20 // bytes of it
)

// Index returns what the index of a preparer's directory has, which is not opened for that and not changed; none
// when there is no index.
func Index(dir string) (list []Patch, err error) {
	f, err := os.Open(filepath.Join(dir, indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the index of patches: %w", err)
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, mostIndex)).Decode(&list); err != nil {
		return nil, fmt.Errorf("read the index of patches: %w", err)
	}
	return list, nil
}

// load reads the index.
func (p *Preparer) load() error {
	list, err := Index(p.dir)
	if err != nil {
		return err
	}
	for _, at := range list {
		if at.State == Ready && !p.there(at.SHA256) {
			continue // a backup has no patches, and they can be made again
		}
		p.mu.Lock()
		p.set(at)
		p.mu.Unlock()
	}
	return nil
}

// tidy deletes the patches that are not in the index: a process was killed between the two.
func (p *Preparer) tidy() error {
	used := map[string]bool{}
	for _, at := range p.book.known {
		used[at.SHA256] = true
	}
	return p.patches.Older(p.o.Now().Add(time.Hour), func(digest string) error { //nolint:wrapcheck // it says what it was doing
		if used[digest] {
			return nil
		}
		return p.patches.Delete(digest) //nolint:wrapcheck // likewise
	})
}

// there says whether a patch is on the disk.
func (p *Preparer) there(digest string) bool {
	f, err := p.patches.Bare(digest) // who fetches it has its bytes looked at
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// book is what is known of pairs, the oldest first.
type book struct {
	known map[Pair]Patch
	order []Pair
}

func (b *book) set(at Patch) {
	if _, ok := b.known[at.Pair]; !ok {
		b.order = append(b.order, at.Pair)
	}
	b.known[at.Pair] = at
}

// drop forgets a pair.
func (b *book) drop(pair Pair) {
	delete(b.known, pair)
	b.order = slices.DeleteFunc(b.order, func(other Pair) bool { return other == pair })
}

// clone returns a copy.
func (b *book) clone() book { return book{maps.Clone(b.known), slices.Clone(b.order)} }

// bytes returns how many bytes the patches have that are ready. Pairs with the same patch count each.
func (b *book) bytes() (n int64) {
	for _, at := range b.known {
		if at.State == Ready {
			n += at.Size
		}
	}
	return n
}

// over returns the oldest patches beyond most, and beyond some bytes. Those that are asked for stay.
func (b *book) over(most int, bytes int64) (gone []Patch) {
	left := b.bytes()
	for _, pair := range b.order {
		at := b.known[pair]
		switch many, large := len(b.order)-len(gone) > most, left > bytes; {
		case !many && !large:
			return gone
		case at.State == Queued || at.State == Making, !many && at.State != Ready:
			continue
		case at.State == Ready:
			left -= at.Size
		}
		gone = append(gone, at)
	}
	return gone
}

// settled returns what outlives the process.
func (b *book) settled() (list []Patch) {
	for _, pair := range b.order {
		if at := b.known[pair]; at.State == Ready || at.State == Unworthy {
			list = append(list, at)
		}
	}
	return list
}

// unused returns the patches of gone that no known pair has.
func (b *book) unused(gone []Patch) (digests []string) {
	for _, g := range gone {
		used := g.SHA256 == ""
		for _, at := range b.known {
			used = used || at.SHA256 == g.SHA256
		}
		if !used {
			digests = append(digests, g.SHA256)
		}
	}
	return digests
}

// keep keeps what came of a pair, on the disk first. A pair that was forgotten while it was made
// leaves nothing.
func (p *Preparer) keep(at Patch) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	b := p.book.clone()
	p.mu.Unlock()
	if _, ok := b.known[at.Pair]; !ok {
		return p.write(b.settled(), b.unused([]Patch{at}))
	}
	b.set(at)
	gone := b.over(p.o.Kept, p.o.Bytes)
	for _, g := range gone {
		b.drop(g.Pair)
	}
	err := p.write(b.settled(), b.unused(gone))
	if err != nil {
		at, gone = Patch{Pair: at.Pair, State: Failed, Why: muster.Public(err), Made: at.Made}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(at)
	for _, g := range gone {
		p.book.drop(g.Pair)
	}
	return err
}

// Forget deletes the patches from and to an image, which is to be deleted. One that is being made
// leaves nothing.
func (p *Preparer) Forget(digest string) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	var gone []Patch
	for _, pair := range slices.Clone(p.book.order) {
		if pair.Old == digest || pair.New == digest {
			gone = append(gone, p.book.known[pair])
			p.book.drop(pair)
		}
	}
	p.tell()
	b := p.book.clone()
	p.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	return p.write(b.settled(), b.unused(gone))
}

// write replaces the index, and deletes what it has no more, in this order: a patch without an
// entry takes room, an entry without a patch would be offered. The caller has the lock of writing.
func (p *Preparer) write(list []Patch, unused []string) error {
	text, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("write the index of patches: %w", err)
	}
	path := filepath.Join(p.dir, indexFile)
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the index of patches: %w", err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return fmt.Errorf("write the index of patches: %w", err)
	}
	for _, digest := range unused {
		err = errors.Join(err, p.patches.Delete(digest))
	}
	return err
}
