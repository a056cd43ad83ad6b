package accounts

import (
	"strings"

	"muster"
)

// Alive is May without a scope.
func (a *Accounts) Alive(id string) bool { return a.May(id, "") }

// May says whether the user, the API key or the session with an id may come in now and do
// what needs scope, for what goes on in its name: false once it is deleted, disabled,
// expired or its owner is, or his role has the scope no more. An empty scope is everybody's.
func (a *Accounts) May(id, scope string) bool {
	at := muster.MicrosOf(a.now())
	a.mu.RLock()
	defer a.mu.RUnlock()
	if strings.HasPrefix(id, userPrefix) {
		u, ok := a.users[id]
		return ok && !u.Disabled && covers(roleScopes(u.Role), scope)
	}
	if k, ok := a.keys[a.hashes[id]]; ok && k.ID == id {
		return k.alive(at) && covers(k.scopes, scope)
	}
	s, ok := a.sessionByID(id)
	if !ok {
		return false
	}
	p, ok := a.principal(s, at)
	return ok && covers(p.Scopes, scope)
}

func covers(scopes []string, scope string) bool {
	return scope == "" || Principal{Scopes: scopes}.Allows(scope)
}
