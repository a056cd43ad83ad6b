package ddi

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"muster"
)

// errToken is what every token gets that is not good for the device, whoever's it is.
func errToken() error { return muster.Errorf(muster.Unauthorized, "the token is not the device's") }

// admit looks whether the request may speak for the device of its path.
func (h *Handler) admit(q *request) error {
	kind, token, _ := strings.Cut(q.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	var err error
	switch {
	case strings.EqualFold(kind, "TargetToken"):
		err = h.admitTarget(q.device, token)
	case strings.EqualFold(kind, "GatewayToken"):
		err = h.admitGateway(q.device, token)
	default:
		err = errToken()
	}
	if muster.KindOf(err) == muster.Unauthorized && h.Denied != nil {
		h.Denied(q.Request, q.device, err)
	}
	return err
}

// admitTarget looks for the device whose token it is.
func (h *Handler) admitTarget(device muster.DeviceID, token string) error {
	whose, _, err := h.Devices.Authenticate(token, nil)
	switch {
	case token == "", err == nil && whose != device:
		return errToken()
	case err != nil && muster.KindOf(err) == muster.Unauthorized:
		return muster.Errorf(muster.Unauthorized, "the token is not the device's: %w", err)
	}
	return err //nolint:wrapcheck // the registry says what it was doing
}

// admitGateway looks whether it is the gateway's token, and the device one of its group.
func (h *Handler) admitGateway(device muster.DeviceID, token string) error {
	given, ours := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(h.Gateway.Token))
	if subtle.ConstantTimeCompare(given[:], ours[:]) != 1 || h.Gateway.Token == "" {
		return errToken()
	}
	d, err := h.Devices.Get(device)
	if err != nil || !d.Groups.Has(h.Gateway.Group) {
		return errPath()
	}
	return nil
}
