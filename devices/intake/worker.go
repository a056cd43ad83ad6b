package intake

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"muster"
	"muster/internal/lifecycle"
)

// worker takes one kind's messages from its queue to its owner.
type worker struct {
	kind    Kind
	cfg     *Config
	owner   Owner
	queue   *queue
	failing atomic.Bool // the owner's last try failed for now
}

// run is the worker's loop. What it has taken when it panics or ctx ends stays in
// the queue.
func (w *worker) run(ctx context.Context) error {
	for {
		batch := w.queue.take()
		if len(batch) == 0 {
			select {
			case <-w.queue.wake:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		w.step(batch, StepDecoded)
		verdicts := make([]error, len(batch))
		if !w.keep(ctx, batch, verdicts) {
			return nil // stopping: what is not kept was not acknowledged
		}
		w.finish(batch, verdicts)
	}
}

// step tells those who follow messages of batch.
func (w *worker) step(batch []Message, name string) {
	var at muster.Micros
	for i := range batch {
		if t := batch[i].trace; t != nil {
			if at == 0 {
				at = muster.MicrosOf(w.cfg.Now())
			}
			t.Step(name, at)
		}
	}
}

// keep has the owner take batch until every message is kept or refused for good,
// and writes into verdicts which. It returns false when ctx ends before.
func (w *worker) keep(ctx context.Context, batch []Message, verdicts []error) bool {
	wait := firstWait
	for try := 1; ; try++ {
		errs := w.try(ctx, batch)
		if len(batch) > 1 && refusedWhole(errs, try) {
			mid := len(batch) / 2
			return w.keep(ctx, batch[:mid], verdicts[:mid]) && w.keep(ctx, batch[mid:], verdicts[mid:])
		}
		var again []int
		for i, err := range errs {
			if err != nil && !final(err, try) {
				again = append(again, i)
			} else {
				verdicts[i] = err
			}
		}
		w.setFailing(again, errs)
		switch {
		case len(again) == 0:
			return true
		case ctx.Err() != nil || !pause(ctx, wait):
			return false
		case len(again) < len(batch):
			return w.keepSome(ctx, batch, again, verdicts)
		}
		wait = min(2*wait, lastWait)
	}
}

// keepSome is keep for those of batch whose indices are in which.
func (w *worker) keepSome(ctx context.Context, batch []Message, which []int, verdicts []error) bool {
	some, of := make([]Message, len(which)), make([]error, len(which))
	for i, j := range which {
		some[i] = batch[j]
	}
	if !w.keep(ctx, some, of) {
		return false
	}
	for i, j := range which {
		verdicts[j] = of[i]
	}
	return true
}

// try is one Take. A panic, or an answer that is none, is an error of ours for all.
func (w *worker) try(ctx context.Context, batch []Message) (errs []error) {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	err := lifecycle.Guard(func() error {
		errs = w.owner.Take(ctx, batch)
		return nil
	})
	if err == nil && len(errs) != len(batch) {
		err = fmt.Errorf("%d answers for %d messages", len(errs), len(batch))
	}
	if err == nil {
		return errs
	}
	w.cfg.Logger.Error("the owner of a kind of message failed", "kind", w.kind.String(), "err", err)
	errs = make([]error, len(batch))
	for i := range errs {
		errs[i] = muster.Errorf(muster.Internal, "internal error: %w", err)
	}
	return errs
}

// final says whether err, after so many tries, refuses a message for good.
func final(err error, try int) bool {
	switch muster.KindOf(err) {
	case muster.Unavailable, muster.Busy:
		return false
	case muster.Internal:
		return try >= internalTries
	default:
		return true
	}
}

// refusedWhole says whether the transaction was refused, and not its messages one
// by one.
func refusedWhole(errs []error, try int) bool {
	for _, err := range errs {
		if _, alone := errors.AsType[*refusal](err); err == nil || alone || !final(err, try) {
			return false
		}
	}
	return true
}

// setFailing remembers, and says, whether the owner can keep messages.
func (w *worker) setFailing(again []int, errs []error) {
	failing := len(again) > 0
	if w.failing.Swap(failing) == failing {
		return
	}
	if failing {
		w.cfg.Logger.Error("messages cannot be stored now; they wait", "kind", w.kind.String(), "err", errs[again[0]])
	} else {
		w.cfg.Logger.Info("messages are stored again", "kind", w.kind.String())
	}
}

// finish keeps the refused messages of batch as rejected, acknowledges all in
// order, and lets go of them.
func (w *worker) finish(batch []Message, verdicts []error) {
	rejected := 0
	for i, err := range verdicts {
		if err == nil {
			continue
		}
		rejected++
		code, reason := CodeOf(err), muster.Public(err)
		if t := batch[i].trace; t != nil {
			t.Refused(code, reason)
		}
		w.guard("keep a rejected message", func() { w.cfg.Refuse(batch[i], code, reason) })
	}
	w.step(batch, StepStored)
	for i := range batch {
		if m := &batch[i]; m.From != nil {
			w.guard("acknowledge a message", func() { m.From.Acked(m.Token, answer(verdicts[i])) })
		}
	}
	w.stepAcked(batch)
	w.queue.settle(len(batch)-rejected, rejected)
}

func (w *worker) stepAcked(batch []Message) {
	at := muster.MicrosOf(w.cfg.Now())
	for i := range batch {
		if m := &batch[i]; m.trace != nil && m.From != nil {
			m.trace.Step(StepAcked, at)
		}
	}
}

// answer is what a sender is told: whatever refuses for good must not have it send
// the message again.
func answer(err error) error {
	if err == nil {
		return nil
	}
	switch muster.KindOf(err) {
	case muster.Invalid, muster.TooLarge, muster.Forbidden, muster.Unauthorized, muster.NotFound:
		return err
	default:
		return muster.Errorf(muster.Invalid, "%s", muster.Public(err))
	}
}

// guard keeps a panic of another room from the messages after it.
func (w *worker) guard(doing string, do func()) {
	err := lifecycle.Guard(func() error { do(); return nil })
	if err != nil {
		w.cfg.Logger.Error("another room failed on a message", "doing", doing, "kind", w.kind.String(), "err", err)
	}
}

// pause waits for d; false says that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
