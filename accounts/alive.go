package accounts

import (
	"strings"

	"muster"
)

// Alive says whether the user, the API key or the session with an id may come in now, for
// what goes on in its name: false once it is deleted, disabled, expired or its owner is.
func (a *Accounts) Alive(id string) bool {
	at := muster.MicrosOf(a.now())
	a.mu.RLock()
	defer a.mu.RUnlock()
	if strings.HasPrefix(id, userPrefix) {
		u, ok := a.users[id]
		return ok && !u.Disabled
	}
	if k, ok := a.keys[a.hashes[id]]; ok && k.ID == id {
		return k.alive(at)
	}
	s, ok := a.sessionByID(id)
	if ok {
		_, ok = a.principal(s, at)
	}
	return ok
}
