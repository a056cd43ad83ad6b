package delta

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/desk"
)

// Bounds of what Offers does.
const (
	// Waiting is how long an offer waits for its patch at most. Then the whole image is offered.
	Waiting   = 10 * time.Minute
	readAgain = 30 * time.Second // after which the releases that patches may be from are read again
	failAgain = time.Hour        // after which a patch that failed is tried again
	mostBases = 100              // releases of a product that are looked at, the newest
	mostSaid  = 1000             // versions, as devices write them, that are remembered of a release
)

// Catalogue knows releases.
type Catalogue interface {
	// Manifest returns that of a release; NotFound when there is none.
	Manifest(ctx context.Context, release string) (*firmware.Manifest, error)
	// Bases returns the manifests of releases of a product that devices may have, the newest first.
	Bases(ctx context.Context, product string, most int) ([]*firmware.Manifest, error)
}

// Offers knows which patches belong to the releases that are being rolled out: from the images of
// the version that a device reports to those of the release, by the names of their files. It has
// them made, and says which are ready. It is safe for concurrent use.
type Offers struct {
	preparer  *Preparer
	catalogue Catalogue
	now       func() time.Time

	mu       sync.Mutex
	releases map[string]*release // of open rollouts, by id
}

// release is what is known of a release, with the pairs of the versions that devices reported.
type release struct {
	manifest *firmware.Manifest
	bases    []base
	read     time.Time
	said     map[string]*version
}

// base is a release that devices may have.
type base struct {
	manifest *firmware.Manifest
	version  firmware.Version
}

// version is one that devices reported.
type version struct {
	pairs []Pair    // by file of the release; the zero Pair where there is none
	asked time.Time // when an offer waited for them first
}

// NewOffers returns Offers that know no release yet: see Refresh.
func NewOffers(p *Preparer, c Catalogue, now func() time.Time) *Offers {
	return &Offers{preparer: p, catalogue: c, now: now, releases: map[string]*release{}}
}

// Refresh reads the releases of open rollouts that were not read of late, and forgets all others.
// One that is gone has no patches.
func (o *Offers) Refresh(ctx context.Context, open []string) error {
	now := o.now()
	next := make(map[string]*release, len(open))
	o.mu.Lock()
	for _, id := range open {
		if r := o.releases[id]; r != nil {
			next[id] = r
		}
	}
	o.mu.Unlock()
	for _, id := range open {
		was := next[id]
		if was != nil && now.Sub(was.read) < readAgain {
			continue
		}
		r, err := o.read(ctx, id, was)
		if err != nil {
			return fmt.Errorf("look for patches of release %s: %w", id, err)
		}
		r.read, next[id] = now, r
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.releases = next
	return nil
}

// read reads a release. When patches were asked for first is kept of what was known before.
func (o *Offers) read(ctx context.Context, id string, was *release) (*release, error) {
	r := &release{said: map[string]*version{}}
	m, err := o.catalogue.Manifest(ctx, id)
	if muster.KindOf(err) == muster.NotFound && err != nil {
		return r, nil
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // Refresh says of what
	}
	r.manifest = m
	list, err := o.catalogue.Bases(ctx, m.Product, mostBases)
	if err != nil {
		return nil, err //nolint:wrapcheck // likewise
	}
	for _, b := range list {
		v, err := firmware.ParseVersion(b.Version)
		if err != nil {
			return nil, err //nolint:wrapcheck // likewise
		}
		if b.Type == m.Type {
			r.bases = append(r.bases, base{b, v})
		}
	}
	if was == nil {
		return r, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for said, v := range was.said {
		r.said[said] = &version{pairs: r.pairsOf(said), asked: v.asked}
	}
	return r, nil
}

// of returns what is known of a version that a device reports. The caller has the lock.
func (r *release) of(said string) *version {
	if v := r.said[said]; v != nil {
		return v
	}
	if len(r.said) >= mostSaid {
		clear(r.said)
	}
	v := &version{pairs: r.pairsOf(said)}
	r.said[said] = v
	return v
}

// pairsOf returns the pairs of a version, by file; nil when there are none.
func (r *release) pairsOf(said string) (pairs []Pair) {
	if r.manifest == nil {
		return nil
	}
	var from []*firmware.Manifest
	for i := range r.bases {
		if r.bases[i].version.Is(said) {
			from = append(from, r.bases[i].manifest)
		}
	}
	if len(from) > 1 { // for other hardware
		from = slices.DeleteFunc(from, func(m *firmware.Manifest) bool { return !sameHardware(m, r.manifest) })
	}
	if len(from) != 1 {
		return nil
	}
	for i, f := range r.manifest.Files {
		at := slices.IndexFunc(from[0].Files, func(old firmware.File) bool { return old.Filename == f.Filename })
		if at < 0 || !patchable(&from[0].Files[at], &f) {
			continue
		}
		if pairs == nil {
			pairs = make([]Pair, len(r.manifest.Files))
		}
		pairs[i] = Pair{Old: from[0].Files[at].SHA256, New: f.SHA256}
	}
	return pairs
}

func patchable(old, next *firmware.File) bool {
	return old.SHA256 != next.SHA256 && old.Size <= MaxImage && next.Size <= MaxImage
}

func sameHardware(a, b *firmware.Manifest) bool {
	return slices.EqualFunc(a.Hardware, b.Hardware, func(x, y firmware.Hardware) bool {
		return x.Board == y.Board && slices.Equal(x.Revisions, y.Revisions)
	})
}

// Waits implements target.Patches: it has the patches of a version made that are not there, and
// says whether an offer to a device that reports it is to wait for them. It asks no store.
func (o *Offers) Waits(id, said string) bool {
	if said == "" {
		return false
	}
	o.mu.Lock()
	r := o.releases[id]
	if r == nil {
		o.mu.Unlock()
		return false
	}
	v, now := r.of(said), o.now()
	pairs, asked := v.pairs, v.asked
	if len(pairs) > 0 && asked.IsZero() {
		v.asked, asked = now, now
	}
	o.mu.Unlock()
	waits := false
	for _, pair := range pairs {
		waits = o.made(pair, now) || waits
	}
	return waits && now.Sub(asked) < Waiting
}

// made has the patch of a pair made, if it is not there, and says whether that is under way.
func (o *Offers) made(pair Pair, now time.Time) bool {
	if pair == (Pair{}) {
		return false
	}
	switch at := o.preparer.Find(pair); {
	case at.State == Queued || at.State == Making:
		return true
	case at.State == Unknown, at.State == Failed && now.Sub(at.Made) >= failAgain:
		return o.preparer.Prepare(pair) == nil // Busy: too many wait, and the image is sent
	}
	return false
}

// Patch implements desk.Patches: the patch of a file of a release, for a device that had a version
// when it was offered the release. False when none is ready.
func (o *Offers) Patch(id, said string, file int) (desk.Patch, bool) {
	o.mu.Lock()
	var pair Pair
	if r := o.releases[id]; r != nil && said != "" {
		if pairs := r.of(said).pairs; file >= 0 && file < len(pairs) {
			pair = pairs[file]
		}
	}
	o.mu.Unlock()
	if pair == (Pair{}) {
		return desk.Patch{}, false
	}
	at := o.preparer.Find(pair)
	return desk.Patch{From: pair.Old, SHA256: at.SHA256, Size: at.Size}, at.State == Ready
}
