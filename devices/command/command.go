package command

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"muster"
)

const (
	// MaxMethod is the longest method, in bytes.
	MaxMethod = 64
	// MaxParams is the longest params, result or error, in bytes of JSON.
	MaxParams = 64 << 10
	// MinTTL is the shortest time to live: from when a command is stored until it has a
	// result.
	MinTTL = time.Second
	// MaxTTL is the longest time to live.
	MaxTTL = 30 * 24 * time.Hour
	// DefaultTTL is the time to live of a command that names none.
	DefaultTTL = 24 * time.Hour
	// MaxOpenPerDevice is how many unfinished commands a device may have.
	MaxOpenPerDevice = 1000
	// KeepPerDevice is how many finished commands of a device are kept: the newest.
	KeepPerDevice = 1000
	// KeepFor is how long a finished command is kept at most.
	KeepFor = 30 * 24 * time.Hour
	// KeyFor is how long an idempotency key counts.
	KeyFor = 24 * time.Hour
	// MaxKey is the longest idempotency key, in bytes.
	MaxKey = 256
	// MaxWait is the longest that Send waits for a result.
	MaxWait = 60 * time.Second
	// MaxWaits is how many callers wait at a time; further ones are Busy.
	MaxWaits = 1000
)

// Spec is a command to be sent.
type Spec struct {
	Device muster.DeviceID
	Method string          // [A-Za-z0-9._/-]{1,64}
	Params json.RawMessage // at most MaxParams; {} when empty
	TTL    time.Duration   // MinTTL to MaxTTL, whole seconds; 0 for DefaultTTL
	By     string          // who sends it, kept with it
	Key    string          // idempotency key, at most MaxKey; empty for none
}

// Command is a command and what became of it. Times are zero for what has not
// happened.
type Command struct {
	ID        int64
	Device    muster.DeviceID
	Method    string
	Params    json.RawMessage
	CreatedBy string
	State     State
	Attempts  int             // how often it was handed to a connection
	Progress  int             // 0 to 100
	Result    json.RawMessage // what the device gave with it, empty for nothing
	Error     json.RawMessage
	Job       int64 // 0 for none

	Created, Expires                              muster.Micros
	Sent, Delivered, Accepted, Reported, Finished muster.Micros // each the last time; Reported is of progress

	Late *Late // a report that came when it had expired or was cancelled; nil for none
}

// Late is the last report of a device about a command that had ended without it.
type Late struct {
	ID            int64
	At            muster.Micros
	Status        string // accepted, progress, ok or error
	Result, Error json.RawMessage
}

// Query asks for a page of a device's commands, newest first.
type Query struct {
	Device muster.DeviceID
	State  string // a state's name, open, finished, or empty for all
	Before int64  // only older ones, by id; 0 for the newest
	Limit  int    // at least 1
}

func (s *Spec) check() error {
	switch {
	case s.TTL == 0:
		s.TTL = DefaultTTL
	case s.TTL < MinTTL || s.TTL > MaxTTL:
		return muster.InvalidAt("ttl_s", "ttl_s is %d to %d seconds", MinTTL/time.Second, MaxTTL/time.Second)
	}
	if len(s.Key) > MaxKey {
		return muster.Errorf(muster.Invalid, "the Idempotency-Key has %d bytes, at most %d are allowed", len(s.Key), MaxKey)
	}
	if err := checkMethod(s.Method); err != nil {
		return err
	}
	var err error
	s.Params, err = checkParams("params", s.Params)
	return err
}

func checkMethod(m string) error {
	if m == "" || len(m) > MaxMethod {
		return muster.InvalidAt("method", "a method has 1 to %d characters", MaxMethod)
	}
	for i := range len(m) {
		c := m[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '/' && c != '-' {
			return muster.InvalidAt("method", "a method has letters, digits and . _ / - only")
		}
	}
	return nil
}

// checkParams returns p without spaces, {} when it is empty.
func checkParams(what string, p json.RawMessage) (json.RawMessage, error) {
	if len(bytes.TrimSpace(p)) == 0 {
		return json.RawMessage("{}"), nil
	}
	return compact(what, p)
}

// compact returns JSON text without spaces. It must be UTF-8, which json.Valid does
// not ask for and a database does.
func compact(what string, p json.RawMessage) (json.RawMessage, error) {
	if len(p) > 2*MaxParams {
		return nil, errTooLong(what, len(p))
	}
	var b bytes.Buffer
	if !utf8.Valid(p) || json.Compact(&b, p) != nil {
		return nil, muster.InvalidAt(what, "%s is not JSON", what)
	}
	if b.Len() > MaxParams {
		return nil, errTooLong(what, b.Len())
	}
	return b.Bytes(), nil
}

func errTooLong(what string, n int) error {
	return muster.Errorf(muster.TooLarge, "%s has %d bytes, at most %d are allowed", what, n, MaxParams)
}

// keyHash is what is kept of an idempotency key: each caller has keys of its own.
func keyHash(by, key string) string {
	if key == "" {
		return ""
	}
	return hashOf(by, key)
}

// hashOf returns a digest of parts that tells where one ends.
func hashOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write(strconv.AppendInt(nil, int64(len(p)), 10)) // a hash takes everything
		_, _ = h.Write([]byte(":"))
		_, _ = h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (s *Spec) bodyHash() string {
	return hashOf(s.Method, string(s.Params), s.TTL.String())
}

// FormatID returns an id as topics and the API have it: decimal.
func FormatID(id int64) string { return strconv.FormatInt(id, 10) }

// ParseID reads what FormatID wrote, or answers NotFound: there is nothing of another
// form.
func ParseID(s string) (int64, error) {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id <= 0 || FormatID(id) != s {
		return 0, muster.Errorf(muster.NotFound, "ids are decimal numbers, and there is none of this form")
	}
	return id, nil
}

// message is the payload that a device gets.
func message(method string, params json.RawMessage, expires muster.Micros) []byte {
	b := make([]byte, 0, len(params)+len(method)+80)
	b = append(b, `{"method":"`...) // a method has no character to escape
	b = append(b, method...)
	b = append(b, `","params":`...)
	b = append(b, params...)
	b = append(b, `,"expires_at":"`...)
	b = expires.Time().UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, `"}`...)
}
