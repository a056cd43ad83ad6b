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
