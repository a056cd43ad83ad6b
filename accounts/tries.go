package accounts

import (
	"slices"
	"time"

	"muster"
)

const (
	maxNetworks = 8                   // of a user; one more forgets the one that was used least recently
	knownFor    = 30 * 24 * time.Hour // that a network is known after a sign-in
)

// SeenNetwork is where a user signed in from: an IPv4 address or an IPv6 /64, and when last.
type SeenNetwork struct {
	Network string        `json:"network"`
	At      muster.Micros `json:"at"`
}

// mayTry takes a try to sign in with what was typed as e-mail, known or not. Each network has
// a bucket of its own for each account, which is asked first: one stranger at one address
// empties that alone. What passes it counts against the account everywhere, unless it comes
// from where the account is at home: many strangers together do not keep him out there.
func (a *Accounts) mayTry(email string, from Client) error {
	now, net := a.now(), network(from.Address)
	if err := a.networks.take(now, net, addressRate()); err != nil {
		return err
	}
	if err := a.tries.take(now, tryKey(email, from), accountRate()); err != nil {
		return err
	}
	if a.atHome(canonical(email), net) {
		return nil
	}
	return a.everywhere.take(now, typed(email), everywhereRate())
}

// tryKey is the bucket of an account at a network.
func tryKey(email string, from Client) string { return network(from.Address) + " " + typed(email) }

// atHome says whether the user of an e-mail has a live session from the network, or has
// signed in from there lately.
func (a *Accounts) atHome(email, net string) bool {
	if net == noNetwork {
		return false
	}
	now := a.now()
	a.mu.RLock()
	defer a.mu.RUnlock()
	id, ok := a.emails[email]
	if !ok {
		return false
	}
	oldest := muster.MicrosOf(now.Add(-knownFor))
	if slices.ContainsFunc(a.users[id].Networks, func(s SeenNetwork) bool { return s.Network == net && s.At > oldest }) {
		return true
	}
	for _, s := range a.sessions {
		if s.User == id && network(s.Address) == net {
			if _, alive := a.principal(s.Session, muster.MicrosOf(now)); alive {
				return true
			}
		}
	}
	return false
}

// seenAt returns list with a sign-in from net at at, the newest first, without what is over.
func seenAt(list []SeenNetwork, net string, at muster.Micros) []SeenNetwork {
	if net == noNetwork {
		return list
	}
	out := []SeenNetwork{{net, at}}
	for _, s := range list {
		if s.Network != net && s.At > at-muster.Micros(knownFor.Microseconds()) && len(out) < maxNetworks {
			out = append(out, s)
		}
	}
	return out
}
