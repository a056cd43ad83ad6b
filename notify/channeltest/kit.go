package channeltest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/notify/outbox"
)

// Behaviour is what a receiver does from now on.
type Behaviour string

// The behaviours.
const (
	Takes   Behaviour = "takes"   // it takes everything
	Busy    Behaviour = "busy"    // it refuses for now
	Refuses Behaviour = "refuses" // it refuses for good
	Stalls  Behaviour = "stalls"  // it takes part of it, or all, and says nothing more
	Cuts    Behaviour = "cuts"    // it hangs up in the middle
)

// Secret is in the body of each delivery.
const Secret = "the-body-says-this-and-nobody-else" //nolint:gosec // it is none

const (
	soon    = 3 * time.Second // within which what must return at once has to, on a busy machine
	timeout = 300 * time.Millisecond
)

// Rig is a channel with a receiver.
type Rig struct {
	Channel outbox.Channel
	// Behave changes the receiver.
	Behave func(b Behaviour)
	// Refs returns what the receiver calls each message that it took, in no order: the
	// References of the attempts.
	Refs func() []string
	// Target is one to which deliveries can go.
	Target string
	// Secrets are, beside the body, what no attempt may tell: keys and passwords.
	Secrets []string
	n       int
}

// Run runs every test. start makes a rig whose receiver takes everything, until t ends.
func Run(t *testing.T, start func(t *testing.T) Rig) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, r *Rig)
	}{
		{"what is sent arrives", arrives},
		{"those of a fold are sent by one attempt", folds},
		{"a refusal for now is tried again and then taken", busy},
		{"a refusal for good is for good", refuses},
		{"a receiver that stalls ends with the time of the attempt", stalls},
		{"a connection that is cut is tried again", cuts},
		{"the reference is the same over every attempt", reference},
		{"no attempt tells a secret", secrets},
		{"a caller that is gone ends the attempt at once", gone},
		{"many at once do not disturb each other", many},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t)
			r.Secrets = append(slices.Clone(r.Secrets), Secret)
			tt.run(t, &r)
		})
	}
}

// delivery is the next one. Its body is JSON with its content's id and Secret.
func (r *Rig) delivery() outbox.Delivery {
	r.n++
	content := fmt.Sprintf("ntf_%d", r.n)
	return outbox.Delivery{
		ID: fmt.Sprintf("dlv_%06d", r.n), Channel: r.Channel.Name(), Queue: r.Channel.Name(), Target: r.Target, Notification: content,
		Content: content, Body: fmt.Appendf(nil, `{"id":%q,"text":%q}`, content, Secret),
		State: outbox.StateSending, Attempts: 1, Created: muster.MicrosOf(time.Now()),
	}
}

// within makes one attempt with a time of its own.
func (r *Rig) within(t *testing.T, d time.Duration, ds ...outbox.Delivery) outbox.Attempt {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return r.Channel.Deliver(ctx, ds)
}

// try makes one attempt, of which want has to come.
func (r *Rig) try(t *testing.T, want outbox.Verdict, ds ...outbox.Delivery) outbox.Attempt {
	t.Helper()
	a := r.within(t, 20*time.Second, ds...)
	r.judge(t, want, a)
	return a
}

func (r *Rig) judge(t *testing.T, want outbox.Verdict, a outbox.Attempt) {
	t.Helper()
	if a.Verdict != want && (want != outbox.Dead || a.Verdict != outbox.Gone) {
		t.Fatalf("the verdict is %q, want %q: %+v", a.Verdict, want, a)
	}
	if (a.Error == "") != (a.Verdict == outbox.Delivered) || a.At == 0 || a.Duration < 0 {
		t.Errorf("the attempt is %+v", a)
	}
	r.silent(t, a)
}

func (r *Rig) silent(t *testing.T, a outbox.Attempt) {
	t.Helper()
	for _, s := range r.Secrets {
		if strings.Contains(fmt.Sprintf("%+v", a), s) {
			t.Errorf("the attempt tells %q: %+v", s, a)
		}
	}
}

func arrives(t *testing.T, r *Rig) {
	a := r.try(t, outbox.Delivered, r.delivery())
	if refs := r.Refs(); len(refs) != 1 || refs[0] != a.Reference || a.Reference == "" {
		t.Errorf("the receiver took %q, the attempt says %q", refs, a.Reference)
	}
}

func folds(t *testing.T, r *Rig) {
	a := r.try(t, outbox.Delivered, r.delivery(), r.delivery(), r.delivery())
	if refs := r.Refs(); !slices.Contains(refs, a.Reference) {
		t.Errorf("the receiver took %q, the attempt says %q", refs, a.Reference)
	}
}

func busy(t *testing.T, r *Rig) {
	d := r.delivery()
	r.Behave(Busy)
	r.try(t, outbox.Again, d)
	if refs := r.Refs(); len(refs) != 0 {
		t.Errorf("it was taken: %q", refs)
	}
	r.Behave(Takes)
	r.try(t, outbox.Delivered, d)
	if refs := r.Refs(); len(refs) != 1 {
		t.Errorf("the receiver took %q", refs)
	}
}

func refuses(t *testing.T, r *Rig) {
	r.Behave(Refuses)
	r.try(t, outbox.Dead, r.delivery())
	r.Behave(Takes)
	r.try(t, outbox.Delivered, r.delivery())
}

func stalls(t *testing.T, r *Rig) {
	r.Behave(Stalls)
	begun := time.Now()
	r.judge(t, outbox.Again, r.within(t, timeout, r.delivery()))
	if took := time.Since(begun); took > soon {
		t.Errorf("it took %v", took)
	}
	r.Behave(Takes)
	r.try(t, outbox.Delivered, r.delivery())
}

func cuts(t *testing.T, r *Rig) {
	d := r.delivery()
	r.Behave(Cuts)
	begun := time.Now()
	r.try(t, outbox.Again, d)
	if took := time.Since(begun); took > soon {
		t.Errorf("it took %v", took)
	}
	r.Behave(Takes)
	r.try(t, outbox.Delivered, d)
}

func reference(t *testing.T, r *Rig) {
	d, other := r.delivery(), r.delivery()
	first := r.try(t, outbox.Delivered, d)
	d.Attempts = 2
	again := r.try(t, outbox.Delivered, d)
	if first.Reference == "" || first.Reference != again.Reference {
		t.Errorf("references are %q and %q", first.Reference, again.Reference)
	}
	if a := r.try(t, outbox.Delivered, other); a.Reference == first.Reference {
		t.Errorf("another delivery is %q too", a.Reference)
	}
	refs := slices.Sorted(slices.Values(r.Refs()))
	if n := len(slices.Compact(slices.Clone(refs))); len(refs) != 3 || n != 2 {
		t.Errorf("the receiver took %q", refs)
	}
}

func secrets(t *testing.T, r *Rig) {
	for _, b := range []Behaviour{Takes, Busy, Refuses, Stalls, Cuts} {
		r.Behave(b)
		r.silent(t, r.within(t, timeout, r.delivery()))
	}
}

func gone(t *testing.T, r *Rig) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begun := time.Now()
	r.judge(t, outbox.Again, r.Channel.Deliver(ctx, []outbox.Delivery{r.delivery()}))
	if refs := r.Refs(); len(refs) != 0 {
		t.Errorf("it was sent all the same: %q", refs)
	}
	r.Behave(Stalls)
	ctx, cancel = context.WithCancel(t.Context())
	defer time.AfterFunc(50*time.Millisecond, cancel).Stop()
	r.judge(t, outbox.Again, r.Channel.Deliver(ctx, []outbox.Delivery{r.delivery()}))
	if took := time.Since(begun); took > soon {
		t.Errorf("it took %v", took)
	}
	r.Behave(Takes)
	r.try(t, outbox.Delivered, r.delivery())
}

func many(t *testing.T, r *Rig) {
	ds := make([]outbox.Delivery, 30)
	for i := range ds {
		ds[i] = r.delivery()
	}
	want := make([]string, len(ds))
	var all sync.WaitGroup
	for i := range ds {
		all.Go(func() {
			a := r.within(t, 20*time.Second, ds[i])
			if a.Verdict != outbox.Delivered {
				t.Errorf("%+v", a)
			}
			want[i] = a.Reference
		})
	}
	all.Wait()
	got := r.Refs()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the receiver took %q, the attempts say %q", got, want)
	}
}
