package devices

import (
	"slices"

	"muster"
)

// Rights are the topics that a device may use beside its own and its children's:
// filters with its id in the place of {id}, and how much it may publish. The lists
// are shared and must not be changed.
type Rights struct {
	Publish, Subscribe []string
	MessageRate        int64 // messages a second, 0 for the server's default
	ByteRate           int64 // bytes a second, 0 for the server's default
	CreateChildren     bool  // it may make its children by publishing for them
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
	return Rights{
		Publish: withID(p.Publish, string(e.ID)), Subscribe: withID(p.Subscribe, string(e.ID)),
		MessageRate: p.MessageRate, ByteRate: p.ByteRate, CreateChildren: p.CreateChildren,
	}
}

// Refresh returns the Rights of a device that came in by credential (an id), in
// memory. Unauthorized when the device or that credential is not there any more, or the
// credential has expired or was revoked.
func (r *Registry) Refresh(id muster.DeviceID, credential string) (Rights, error) {
	at := muster.MicrosOf(r.now())
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byID[id]
	if !ok || !slices.ContainsFunc(e.creds, func(h *held) bool { return h.ID == credential && h.over(at) == "" }) {
		return Rights{}, muster.Errorf(muster.Unauthorized, "the credential is not valid any more")
	}
	return r.rights(e), nil
}
