package server

import (
	"context"
	"crypto/ed25519"
	"maps"
	"net/http"
	"slices"

	"muster"
	"muster/accounts"
	"muster/firmware/blob"
	"muster/firmware/budget"
	"muster/firmware/catalog"
	"muster/firmware/deliver"
	"muster/firmware/rollout"
	"muster/store/control"
)

// CreateKeyForTest makes a key as the API does.
func (s *Server) CreateKeyForTest(ctx context.Context, scopes []string, selector string) (id, secret string, err error) {
	k, secret, err := s.accounts.CreateKey(ctx, accounts.KeySpec{Name: "test", Scopes: scopes, Selector: selector})
	return k.ID, secret, err
}

// DeliveryForTest returns what images are delivered by: where they lie, what signs their addresses, and the store of rollouts.
func (s *Server) DeliveryForTest() (*blob.Store, *deliver.Signer, *control.Control) {
	return s.images, s.links, s.stores.control
}

// HTTPForTest is all that stands between a connection and an image.
func (s *Server) HTTPForTest() *http.Server { return s.http }

// FailLoop makes one of the server's loops fail.
func (s *Server) FailLoop(name string) bool {
	for _, fail := range []func(name, why string) bool{
		s.loops.Fail, s.ingest.FailLoop, s.said.intake.FailLoop, s.broker.FailLoop, s.live.FailLoop,
	} {
		if fail(name, "failed on purpose") {
			return true
		}
	}
	return false
}

// CatalogForTest is the catalogue of firmware.
func (s *Server) CatalogForTest() *catalog.Catalog { return s.firmware }

// OfferKeyForTest is what devices check offers with.
func (s *Server) OfferKeyForTest() ed25519.PublicKey { return s.updates.talk.Key() }

// ControlForTest is the control store.
func (s *Server) ControlForTest() *control.Control { return s.stores.control }

// ComingForTest tells of changes that were committed, and returns the devices that are to be looked at by then.
func (s *Server) ComingForTest(changes []rollout.Change) []muster.DeviceID {
	s.rollouts.told("r", changes)
	return slices.Collect(maps.Keys(s.rollouts.coming))
}

// BudgetsForTest is what devices may still be sent.
func (s *Server) BudgetsForTest() *budget.Budgets { return s.budgets }
