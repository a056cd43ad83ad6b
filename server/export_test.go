package server

import (
	"context"

	"muster/accounts"
)

// CreateKeyForTest makes a key as the API does.
func (s *Server) CreateKeyForTest(ctx context.Context, scopes []string, selector string) (id, secret string, err error) {
	k, secret, err := s.accounts.CreateKey(ctx, accounts.KeySpec{Name: "test", Scopes: scopes, Selector: selector})
	return k.ID, secret, err
}

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
