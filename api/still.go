package api

import (
	"context"
	"errors"
	"io"
	"time"

	"muster/accounts"
)

// still asks again, while something is made or changed for long, whether who sent the request may do so.
type still struct {
	api   *API
	req   *request
	asked time.Time
	scope string
}

// writing is about a request that writes devices.
func (a *API) writing(ctx context.Context) *still {
	return &still{api: a, req: requestOf(ctx), asked: a.Now(), scope: accounts.DevicesWrite}
}

// now asks at once.
func (s *still) now() error {
	s.asked = s.api.Now()
	return s.api.authorize(s.req, s.scope)
}

// reader returns r, whose reading ends with the error when who sends it may not go on: it asks
// every recheckEvery, and at the end.
func (s *still) reader(r io.Reader) io.Reader { return &stillReader{still: s, r: r} }

type stillReader struct {
	still *still
	r     io.Reader
	ended error // for good: who reads ahead may come again
}

// Read implements io.Reader.
func (r *stillReader) Read(b []byte) (int, error) {
	if r.ended != nil {
		return 0, r.ended
	}
	n, err := r.r.Read(b)
	if ended := errors.Is(err, io.EOF); ended || err == nil && r.still.api.Now().Sub(r.still.asked) >= recheckEvery {
		if r.ended = r.still.now(); r.ended != nil {
			return 0, r.ended
		}
	}
	return n, err //nolint:wrapcheck // a reader in the middle
}
