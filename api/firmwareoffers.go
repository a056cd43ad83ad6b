package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/firmware"
)

// offerKey is the key that the server signs offers with, as it is shown.
type offerKey struct {
	ID  string `json:"id" doc:"Offers name it" example:"a53013b1ad3cd1f73ef79a5a4e0ea3b1"`
	PEM string `json:"pem" doc:"A public key of Ed25519" example:"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"`
}

func (a *API) firmwareOfferRoutes(tags []string) {
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "get-firmware-server-key", Method: http.MethodGet, Path: "/firmware/server-key", Tags: tags,
		Summary:     "Get the public key that offers over MQTT are signed with",
		Description: "Devices are given it beforehand. It stays the same for as long as the server's data directory.",
	}, func(context.Context, *struct{}) (*body[offerKey], error) {
		pem, err := firmware.PublicPEM(a.OfferKey)
		if err != nil {
			return nil, muster.Errorf(muster.Internal, "write the key of offers: %w", err)
		}
		return &body[offerKey]{Body: offerKey{firmware.KeyID(a.OfferKey), string(pem)}}, nil
	})
}
