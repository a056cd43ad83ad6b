package devices

import (
	"slices"

	"muster"
)

// Rights are the topics that a device may use beside its own and its children's:
// filters with its id in the place of {id}. The lists are shared and must not be
// changed.
type Rights struct {
	Publish, Subscribe []string
}

// Rights returns what id's profile adds, in memory, or NotFound.
func (r *Registry) Rights(id muster.DeviceID) (Rights, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byID[id]
	if !ok {
		return Rights{}, errNoDevice()
	}
	return r.rights(e), nil
}

// rights is called with the lock held.
func (r *Registry) rights(e *entry) Rights {
	p := r.profiles[e.Profile]
	return Rights{withID(p.Publish, string(e.ID)), withID(p.Subscribe, string(e.ID))}
}

// Refresh returns the Rights of a device that came in by credential (an id), in
// memory. Unauthorized when the device or that credential is not there any more.
func (r *Registry) Refresh(id muster.DeviceID, credential string) (Rights, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byID[id]
	if !ok || !slices.ContainsFunc(e.creds, func(c Credential) bool { return c.ID == credential }) {
		return Rights{}, muster.Errorf(muster.Unauthorized, "the credential is not valid any more")
	}
	return r.rights(e), nil
}
