package devices

import (
	"context"
	"time"

	"muster"
)

const (
	// DefaultOverlap is how long a rotated credential stays good beside the new one.
	DefaultOverlap = 24 * time.Hour
	// MaxOverlap is the longest overlap.
	MaxOverlap = 90 * 24 * time.Hour
)

// Rotate gives device a new credential that takes the place of the one with the id:
// that one expires after overlap, or when it would have anyway if that is sooner; at
// once for 0, and then its connections are cut. An empty kind of g is the old one's, an
// empty label its label. NotFound when the device or the credential is not there, Invalid
// and Conflict as AddGrant; Conflict also for what has expired and for a key that came by
// a CA, which goes by its certificate.
func (r *Registry) Rotate(ctx context.Context, device muster.DeviceID, id string, overlap time.Duration, g Grant) (Issued, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Issued{}, muster.InvalidAt("overlap_s", "the overlap is not between 0 and %d seconds", int(MaxOverlap.Seconds()))
	}
	var is Issued
	err := r.change(ctx, func(ctx context.Context) (err error) {
		is, err = r.rotate(ctx, device, id, overlap, g)
		return err
	})
	if err != nil {
		return Issued{}, err
	}
	if overlap == 0 {
		r.onRights(func(d muster.DeviceID, credential string) bool { return d == device && credential == id })
	}
	r.watch.changed([]muster.DeviceID{device})
	return is, nil
}

func (r *Registry) rotate(ctx context.Context, device muster.DeviceID, id string, overlap time.Duration, g Grant) (Issued, error) {
	_, old, err := r.credential(device, id)
	if err != nil {
		return Issued{}, err
	}
	if old.CA != "" {
		return Issued{}, muster.Errorf(muster.Conflict, "a key that came by an authority's certificate follows that: add a credential, and revoke this one")
	}
	if g.Kind == "" {
		g.Kind = old.Kind
	}
	if g.Label == "" {
		g.Label = old.Label
	}
	now := r.now()
	at := muster.MicrosOf(now)
	if why := old.over(at); why != "" {
		return Issued{}, muster.Errorf(muster.Conflict, "the credential %s: add a new one instead", why)
	}
	cred, is, err := g.credential(device, now)
	if err != nil {
		return Issued{}, err
	}
	s := &swap{old: old, fresh: hold(old.snapshot())}
	if ends := muster.MicrosOf(now.Add(overlap)); s.fresh.Expires == 0 || ends < s.fresh.Expires {
		s.fresh.Expires = ends
	}
	return is, r.addCredential(ctx, cred, is, s, false)
}
