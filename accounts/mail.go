package accounts

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"muster"
)

// Mail is one mail to be sent. Key is the same whenever it is tried again,
// [A-Za-z0-9_]{1,64}, for its Message-ID.
type Mail struct{ To, Subject, Text, HTML, Key string }

// Mailer sends a mail. An error of kind Invalid is for good; any other is tried again.
type Mailer interface {
	Send(ctx context.Context, m Mail) error
}

const (
	// MaxMails is how many mails wait at most. One more is dropped, counted and said in
	// the log: who asked for it asks again.
	MaxMails = 1000

	mailTime  = 30 * time.Second // one attempt
	mailLife  = time.Hour        // then a mail is given up
	mailFirst = 5 * time.Second  // before the second attempt, doubled each time
	mailLast  = 10 * time.Minute
)

// letter is a mail that waits, in memory only: a restart loses it, and who needs it
// asks again.
type letter struct {
	mail Mail
	// write makes the mail when its turn comes; ok is false when there is none to be sent.
	// Nil when it is written.
	write func(ctx context.Context) (m Mail, ok bool, err error)
	begun time.Time
	due   time.Time
	wait  time.Duration
}

// post is the queue of letters.
type post struct {
	mailer  Mailer // set before RunMail
	wake    chan struct{}
	sent    atomic.Uint64
	failed  atomic.Uint64 // given up
	dropped atomic.Uint64 // the queue was full

	mu      sync.Mutex
	letters []letter // at most MaxMails with the one that is being sent
	sending bool
}

func newPost() *post { return &post{wake: make(chan struct{}, 1)} }

// SetMailer has mails sent by m. Without one there are none: invitations are links only,
// and forgotten passwords cannot be reset. Call it once, before anything else.
func (a *Accounts) SetMailer(m Mailer) { a.post.mailer = m }

// SendsMail says whether there is a mailer.
func (a *Accounts) SendsMail() bool { return a.post.mailer != nil }

func (a *Accounts) needMailer() error {
	if !a.SendsMail() {
		return muster.Errorf(muster.Unavailable, "no mail can be sent: the server has no --smtp")
	}
	return nil
}

// mail queues a written mail.
func (a *Accounts) mail(m Mail) { a.enqueue(letter{mail: m}) }

// later queues a mail that is written off the request's path.
func (a *Accounts) later(write func(ctx context.Context) (Mail, bool, error)) {
	a.enqueue(letter{write: write})
}

func (a *Accounts) enqueue(l letter) {
	p := a.post
	if p.mailer == nil {
		return
	}
	l.begun = a.now()
	l.due, l.wait = l.begun, mailFirst
	if !p.put(l) {
		p.dropped.Add(1)
		a.log.Warn("a mail is dropped: too many wait", "waiting", MaxMails)
		return
	}
	select {
	case p.wake <- struct{}{}:
	default: // a signal waits already
	}
}

func (p *post) put(l letter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.len() >= MaxMails {
		return false
	}
	p.letters = append(p.letters, l)
	return true
}

// len is called with the lock held.
func (p *post) len() int {
	if p.sending {
		return len(p.letters) + 1
	}
	return len(p.letters)
}

func (p *post) queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.len()
}

// take returns the first letter that is due at now, or how long to wait for one.
func (p *post) take(now time.Time) (l letter, ok bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait = mailLife
	for i, c := range p.letters {
		if d := c.due.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		p.letters = append(p.letters[:i], p.letters[i+1:]...)
		p.sending = true
		return c, true, 0
	}
	return letter{}, false, wait
}

// done ends the sending of l, which waits again when again is true.
func (p *post) done(l letter, again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sending = false
	if again {
		p.letters = append(p.letters, l)
	}
}

// RunMail sends the mails that wait, one at a time, until ctx ends. One that fails is
// tried again, at growing intervals for an hour; the others go on meanwhile. Mails that
// wait at the end are lost.
func (a *Accounts) RunMail(ctx context.Context) error {
	for ctx.Err() == nil {
		l, ok, wait := a.post.take(a.now())
		if ok {
			a.deliver(ctx, l)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-a.post.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// deliver tries l once.
func (a *Accounts) deliver(ctx context.Context, l letter) {
	p := a.post
	finished := false
	defer func() {
		if !finished { // a panic: the loop is restarted, and this letter is not tried again
			p.failed.Add(1)
			p.done(l, false)
		}
	}()
	sent, err := a.send(ctx, &l)
	again := false
	switch {
	case err == nil && sent:
		p.sent.Add(1)
	case err == nil: // there was nobody to write to
	case muster.KindOf(err) == muster.Invalid || a.now().Sub(l.begun) >= mailLife:
		p.failed.Add(1)
		a.log.Warn("a mail is given up", "err", err)
	default:
		again = true
		l.due, l.wait = a.now().Add(l.wait), min(2*l.wait, mailLast)
		a.log.Info("a mail could not be sent, trying again", "err", err, "at", l.due)
	}
	finished = true
	p.done(l, again && ctx.Err() == nil)
}

// send writes the mail of l, when it is not written yet, and sends it.
func (a *Accounts) send(ctx context.Context, l *letter) (sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, mailTime)
	defer cancel()
	if l.write != nil {
		m, ok, err := l.write(ctx)
		if err != nil || !ok {
			return false, err
		}
		l.mail, l.write = m, nil
	}
	return true, a.post.mailer.Send(ctx, l.mail)
}
