package server

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"muster/firmware"
	"muster/firmware/catalog"
	"muster/firmware/delta"
	"muster/firmware/desk"
	"muster/firmware/rollout"
	"muster/firmware/target"
)

const (
	// patchesDir is where patches lie, in the data directory.
	patchesDir = "patches"
	// foreseen is for how many versions of a fleet, those that most of its devices have, patches are
	// made before a phase begins; for others when the first of them is to be offered the release.
	foreseen = 4
)

// patches are those between the images of releases. Its methods do nothing on nil: a server that
// makes none.
type patches struct {
	preparer *delta.Preparer
	offers   *delta.Offers
	seen     map[string]int // phase, from 1, for which a rollout's versions were looked at; the keeper's own
}

// buildPatches makes what makes them, unless they are off.
func (s *Server) buildPatches() error {
	if s.cfg.Firmware.NoPatches {
		return nil
	}
	p := &patches{seen: map[string]int{}}
	var err error
	p.preparer, err = delta.OpenPreparer(filepath.Join(s.cfg.DataDir, patchesDir), s.wholeImages(), delta.Options{
		Told: func() { s.rollouts.cameAll() }, Now: s.cfg.Now, Log: s.cfg.Logger,
	})
	if err != nil {
		return fmt.Errorf("open the patches of firmware: %w", err)
	}
	p.offers = delta.NewOffers(p.preparer, shelf{s.firmware}, s.cfg.Now)
	s.patches = p
	err = s.metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_firmware_patches_bytes", Help: "Bytes of patches of firmware on the disk.",
	}, func() float64 { return float64(p.preparer.Bytes()) }))
	if err != nil {
		return fmt.Errorf("register the metrics of patches: %w", err)
	}
	return nil
}

// waiting says which offers wait for patches; nil for none.
func (p *patches) waiting() target.Patches {
	if p == nil {
		return nil
	}
	return p.offers
}

// offered says which patches are offered; nil for none.
func (p *patches) offered() desk.Patches {
	if p == nil {
		return nil
	}
	return p.offers
}

// refresh reads what patches the open rollouts may have.
func (p *patches) refresh(ctx context.Context, open []rollout.Rollout) error {
	if p == nil {
		return nil
	}
	ids := make(map[string]struct{}, len(open))
	for i := range open {
		ids[open[i].Release] = struct{}{}
	}
	return p.offers.Refresh(ctx, slices.Collect(maps.Keys(ids))) //nolint:wrapcheck // it says what it was doing
}

// forget deletes the patches of an image that is deleted.
func (p *patches) forget(sha256 string) error {
	if p == nil {
		return nil
	}
	return p.preparer.Forget(sha256) //nolint:wrapcheck // it says what it was doing
}

// foresee has the patches made that most devices of a rollout will need, before it starts and
// before each of its phases.
func (p *patches) foresee(r *rollouts, open []rollout.Rollout) {
	if p == nil {
		return
	}
	seen := make(map[string]int, len(open))
	for i := range open {
		x := &open[i]
		if x.Status != rollout.Running && x.Status != rollout.Scheduled {
			continue
		}
		if p.seen[x.ID] != x.Phase+1 {
			found := r.versions(x)
			if len(found) == 0 { // nothing is known of the release, or of the devices, yet
				continue
			}
			for _, version := range found {
				p.offers.Waits(x.Release, version)
			}
		}
		seen[x.ID] = x.Phase + 1
	}
	p.seen = seen
}

// versions returns those that most devices of a rollout report, the most common first.
func (r *rollouts) versions(x *rollout.Rollout) []string {
	query, err := r.server.registry.Compile(x.Query)
	if err != nil { // join and start say so
		return nil
	}
	counts := map[string]int{}
	for _, id := range r.server.registry.MatchAll(query) {
		if v := r.fleet.Replaced(x, id); v != "" {
			counts[v]++
		}
	}
	list := make([]string, 0, len(counts))
	for v := range counts {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b)) })
	return list[:min(len(list), foreseen)]
}

// Manifest implements delta.Catalogue.
func (s shelf) Manifest(ctx context.Context, id string) (*firmware.Manifest, error) {
	r, err := s.Catalog.Release(ctx, id)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it was doing
	}
	return manifestOf(&r)
}

// Bases implements delta.Catalogue. Those that were revoked are among them: devices may have them.
func (s shelf) Bases(ctx context.Context, product string, most int) (out []*firmware.Manifest, err error) {
	list, err := s.Releases(ctx, catalog.Filter{Product: product, Limit: most})
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it was doing
	}
	for i := range list {
		if list[i].State == catalog.Draft {
			continue
		}
		m, err := manifestOf(&list[i])
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func manifestOf(r *catalog.Release) (*firmware.Manifest, error) {
	m, err := firmware.ParseManifest(r.Manifest)
	if err != nil {
		return nil, fmt.Errorf("read the manifest of release %s: %w", r.ID, err)
	}
	return m, nil
}

var _ delta.Catalogue = shelf{}
