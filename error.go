package muster

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an Error is. Each adapter has one table from
// Kind to its protocol's answer.
type Kind uint8

// The kinds of failure. The zero Kind is Internal: an error nobody classified
// is a fault of ours.
const (
	Internal     Kind = iota // a fault of Muster's own
	Invalid                  // the input breaks a rule; trying again will fail again
	NotFound                 // the thing named does not exist
	Conflict                 // the thing exists already, or changed meanwhile
	Unauthorized             // who is asking is not known
	Forbidden                // who is asking is known and may not
	Busy                     // refused for now: full, too fast, or starting; try later
	Unavailable              // something Muster depends on does not answer
	TooLarge                 // the input is over a size limit
	Stale                    // the thing is not the version any more that the caller named
	Timeout                  // what was asked for took longer than it may
)

var kindNames = [...]string{
	"internal", "invalid", "not_found", "conflict", "unauthorized", "forbidden", "busy", "unavailable", "too_large", "stale", "timeout",
}

// String returns the kind's stable code, as problem+json carries it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[Internal]
}

// Error is the one error type that crosses rooms. Msg is written for the person
// or device that caused it and holds no secret and no payload.
type Error struct {
	Kind Kind
	Msg  string
	Err  error // the cause, for the log; may be nil
	// Fields are the members of the input that it is about, as the API names them, each a path
	// such as tags or waves/0/count: of one thing or of those that do not go together. None
	// when it is about none.
	Fields []string
}

func (e *Error) Error() string { return e.Msg }

func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error of kind k. A %w verb in format sets the cause.
func Errorf(k Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: k, Msg: err.Error(), Err: errors.Unwrap(err)}
}

// At returns err as being about a member of the input, or about several that do not go
// together. What names members already is about those of that member: At(err, "waves/0")
// of an error about count is about waves/0/count. An error that is no Error is returned
// as it is, nil too.
func At(err error, fields ...string) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	if len(e.Fields) > 0 && len(fields) == 1 {
		inner := make([]string, len(e.Fields))
		for i, f := range e.Fields {
			inner[i] = fields[0] + "/" + f
		}
		fields = inner
	}
	return &Error{Kind: e.Kind, Msg: e.Msg, Err: err, Fields: fields}
}

// InvalidAt returns an Invalid Error about a member of the input; see At.
func InvalidAt(field, format string, args ...any) error {
	return At(Errorf(Invalid, format, args...), field)
}

// FieldsOf returns the members of the input that err is about, nil when it says none.
func FieldsOf(err error) []string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Fields
	}
	return nil
}

// KindOf returns the kind of the outermost Error in err's chain, Internal when
// there is none. KindOf(nil) is Internal too: ask only about failures.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Public returns what may be shown to whoever caused err: the message of the
// outermost Error, or a plain "internal error" that gives nothing away.
func Public(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Kind != Internal {
		return e.Msg
	}
	return "internal error"
}
