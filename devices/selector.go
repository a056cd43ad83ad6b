package devices

import (
	"context"
	"time"

	"muster"
	"muster/cache"
	"muster/devices/query"
)

// maxSelectors is how many compiled selectors are kept: compiling one takes 10 to 1,000
// times as long as asking it about a device (docs/adr/0007).
const maxSelectors = 1024

// selectorKey is a selector's text at one state of the groups and profiles it may name.
type selectorKey struct {
	text  string
	names uint64
}

func newSelectors(now func() time.Time) *cache.Cache[selectorKey, *query.Expr] {
	c, err := cache.New(cache.Config[selectorKey, *query.Expr]{Name: "selectors", Entries: maxSelectors, Now: now})
	if err != nil {
		panic(err) // the configuration above is whole
	}
	return c
}

// Selector is Compile for the device selector of an API key, which is asked again and
// again: what it made is kept until the groups or profiles change. Its answer is never
// nil. Forbidden when the selector names a group or profile that is gone: who has such a
// key reaches no device.
func (r *Registry) Selector(text string) (*query.Expr, error) {
	key := selectorKey{text, r.names.Load()}
	e, err := r.selectors.Get(context.Background(), key, func(_ context.Context, k selectorKey) (*query.Expr, error) {
		return r.Compile(k.text)
	})
	if err != nil {
		return nil, muster.Errorf(muster.Forbidden, "the key's device selector selects nothing any more: %s", muster.Public(err))
	}
	return e, nil
}

// SelectorFigures are those of the kept selectors.
func (r *Registry) SelectorFigures() cache.Figures { return r.selectors.Figures() }

// Covers says whether a key with the selector text, empty for all, is about the device
// id, which must exist.
func (r *Registry) Covers(text string, id muster.DeviceID) bool {
	if text == "" {
		return true
	}
	e, err := r.Selector(text)
	return err == nil && r.Matches(id, e)
}

// WouldMatch says whether the device that s describes would match e once it is made. Of
// a device that cannot be made it says false.
func (r *Registry) WouldMatch(s Spec, e *query.Expr) bool {
	now := muster.MicrosOf(r.now())
	d, err := s.device(now)
	if err != nil {
		return false
	}
	sub := subject{
		r: r, d: d, credentials: s.Credential != "" || len(s.Grants) > 0,
		asked: true, state: muster.PresenceNever, checkIn: d.CheckIn,
	}
	return query.Eval(e, &sub, now)
}
