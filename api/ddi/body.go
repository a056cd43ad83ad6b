package ddi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"muster"
)

// What is kept of what a device says.
const (
	maxDetails = 50
	maxDetail  = 512 // bytes
)

// body reads the body of a request, at most maxBody.
func (h *Handler) body(w *recorder, q *request) ([]byte, error) {
	if kind, _, err := mime.ParseMediaType(q.Header.Get("Content-Type")); err == nil && kind == "application/cbor" {
		return nil, errCBOR
	}
	// The clock is the socket's; a test's writer has none.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	text, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxBody))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return nil, muster.Errorf(muster.TooLarge, "the body has more than %d bytes", maxBody)
	}
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "read the body: %w", err)
	}
	return text, nil
}

// errCBOR is for clients that would speak hawkBit's other format.
var errCBOR = errors.New("the body is CBOR")

// decode reads one JSON document into v. SWUpdate copies lines of its log into its details,
// with tabs that JSON does not allow: they, and other control characters, are spaces here.
func decode(text []byte, v any) error {
	clean := bytes.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	if err := json.Unmarshal(clean, v); err != nil {
		return muster.Errorf(muster.Invalid, "the body is not the JSON that is expected here")
	}
	return nil
}

// cut returns at most n bytes of s, at the end of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// details are lines that a device says, cut.
type details []string

// UnmarshalJSON takes null for none.
func (d *details) UnmarshalJSON(text []byte) error {
	var list []string
	if err := json.Unmarshal(text, &list); err != nil {
		return err //nolint:wrapcheck // decode says what it was doing
	}
	if len(list) > maxDetails {
		list = list[:maxDetails]
	}
	for i := range list {
		list[i] = cut(list[i], maxDetail)
	}
	*d = list
	return nil
}

// line returns what is said as one, of at most maxDetail bytes.
func (d details) line() string {
	kept := make([]string, 0, len(d))
	for _, s := range d {
		if s = strings.TrimSpace(s); s != "" {
			kept = append(kept, s)
		}
	}
	return cut(strings.Join(kept, "; "), maxDetail)
}
