package outbox

import (
	"context"
	"time"

	"muster"
)

// Verdict says what follows from an attempt.
type Verdict string

// The verdicts.
const (
	Delivered Verdict = "delivered" // the receiver took it
	Again     Verdict = "again"     // it may work later
	Later     Verdict = "later"     // the target cannot take it now, which is no fault: it does not count as an attempt
	Gone      Verdict = "gone"      // the target wants nothing any more: it is to be disabled
	Dead      Verdict = "dead"      // trying again is of no use: a bad address or content, or a place that may not be reached
	Dropped   Verdict = "dropped"   // nobody wants it any more
)

// Attempt is what came of sending once.
type Attempt struct {
	Verdict    Verdict       `json:"verdict"`
	At         muster.Micros `json:"at"`          // when it began
	Duration   time.Duration `json:"duration"`    // nanoseconds
	Status     int           `json:"status"`      // of an answer that has one (HTTP, SMTP), 0 for none
	Error      string        `json:"error"`       // in words, empty when delivered; holds no secret
	Response   string        `json:"response"`    // how the answer's body begins, at most 1 KiB of plain text
	Reference  string        `json:"reference"`   // what the receiver's side calls it, empty when it does not
	RetryAfter time.Duration `json:"retry_after"` // as the receiver wishes, 0 when it says nothing
	// Note says what was otherwise than it was wished, of whatever verdict: a template that
	// did not work. Empty for nothing; holds no secret.
	Note string `json:"note,omitempty"`
	// Refused says that the receiver did not take it, or was never reached: surely nobody was told. False when one cannot know.
	Refused bool `json:"-"`
	// Alone says of Again that it is about this target or content only: what its queue has
	// in common, a mail server or the broker, works.
	Alone bool `json:"-"`
}

// Pass is what becomes of a delivery that is about to be sent. The zero Pass lets it go.
type Pass struct {
	Drop string        // why nobody wants it any more; empty for not
	Hold muster.Micros // until when it waits for hours, which is no attempt; 0 for not at all
}

// Channel sends deliveries of one kind.
type Channel interface {
	// Name is what Delivery.Channel says.
	Name() string
	// Deliver makes one attempt at ds: one delivery, or those of one fold. It returns when
	// ctx ends at the latest, and may be called by many at once.
	Deliver(ctx context.Context, ds []Delivery) Attempt
}
