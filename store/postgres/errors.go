package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"muster"
)

// SQLSTATE codes and classes that change what is done next (PostgreSQL manual,
// appendix A).
const (
	stateUniqueViolation = "23505"
	stateCheckViolation  = "23514" // also: no partition for the row
)

// permanent names the SQLSTATE classes of what is refused for good: the same
// rows will be refused again.
var permanent = map[string]string{
	"22": "data exception",
	"23": "integrity constraint violation",
	"54": "program limit exceeded",
}

// state returns the SQLSTATE of err, empty when the server sent none.
func state(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// classify turns a failure into the Error that the caller must choose an answer
// by: Invalid for SQLSTATE classes 22, 23 and 54, Unavailable for everything else
// (no connection, 53xxx, 57xxx, 40xxx, a deadline). The server's own words stay in
// the cause, because they may quote a value.
func classify(doing string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*muster.Error](err); ok {
		return e
	}
	err = fmt.Errorf("%s: %w", doing, err)
	code := state(err)
	if len(code) == 5 {
		if class, ok := permanent[code[:2]]; ok {
			msg := fmt.Sprintf("the database refuses this for good: %s (SQLSTATE %s)", class, code)
			return &muster.Error{Kind: muster.Invalid, Msg: msg, Err: err}
		}
		msg := fmt.Sprintf("the database cannot %s now (SQLSTATE %s)", doing, code)
		return &muster.Error{Kind: muster.Unavailable, Msg: msg, Err: err}
	}
	if errors.Is(err, context.Canceled) {
		return &muster.Error{Kind: muster.Unavailable, Msg: "cancelled: " + doing, Err: err}
	}
	return &muster.Error{Kind: muster.Unavailable, Msg: "the database does not answer: " + doing, Err: err}
}
