package email_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/notify/channeltest"
	"muster/notify/email"
	"muster/notify/email/mailtest"
	"muster/notify/outbox"
)

// compose writes what the deliveries say.
func compose(_ context.Context, ds []outbox.Delivery) (email.Mail, error) {
	m := email.Mail{To: "ada@example.com", Subject: "A notification"}
	for _, d := range ds {
		m.Text += string(d.Body) + "\n"
	}
	return m, nil
}

// faults are what each behaviour of the kit is in SMTP.
func faults(s *mailtest.Server) func(channeltest.Behaviour) {
	echo := "what is this? " + secret + " " + channeltest.Secret
	return func(b channeltest.Behaviour) {
		for _, step := range []mailtest.Step{mailtest.To, mailtest.Content} {
			s.Fail(step, mailtest.Fault{})
		}
		switch b {
		case channeltest.Busy:
			s.Fail(mailtest.To, mailtest.Fault{Code: 451, Enhanced: [3]int{4, 7, 1}, Text: "grey listed " + secret})
		case channeltest.Refuses:
			s.Fail(mailtest.Content, mailtest.Fault{Code: 550, Enhanced: [3]int{5, 7, 1}, Text: echo})
		case channeltest.Stalls:
			s.Fail(mailtest.Content, mailtest.Fault{Silence: true})
		case channeltest.Cuts:
			s.Fail(mailtest.Content, mailtest.Fault{HangUp: true})
		default:
		}
	}
}

func TestMailIsAChannel(t *testing.T) {
	for name, c := range map[string]mailtest.Config{
		"with STARTTLS and a password": {StartTLS: true, User: "muster", Password: secret},
		"over TLS from the first byte": {TLS: true},
	} {
		t.Run(name, func(t *testing.T) {
			channeltest.Run(t, func(t *testing.T) channeltest.Rig {
				s := mailtest.Start(t, c)
				return channeltest.Rig{
					Channel: email.NewChannel(mailer(t, s), compose), Behave: faults(s), Target: "usr_1", Secrets: []string{secret},
					Refs: func() (ids []string) {
						for _, m := range s.Mails() {
							ids = append(ids, m.Header.Get("Message-Id"))
						}
						return ids
					},
				}
			})
		})
	}
}

func TestAFoldIsOneMailWhoseIDIsThatOfItsOldest(t *testing.T) {
	s := mailtest.Start(t, mailtest.Config{})
	ch := email.NewChannel(mailer(t, s), compose)
	ds := []outbox.Delivery{{ID: "dlv_1", Body: []byte("one")}, {ID: "dlv_2", Body: []byte("two")}}
	a := ch.Deliver(t.Context(), ds)
	b := ch.Deliver(t.Context(), []outbox.Delivery{ds[1], {ID: "dlv_3", Body: []byte("three")}, ds[0]})
	if a.Verdict != outbox.Delivered || a.Reference != b.Reference {
		t.Errorf("%+v %+v", a, b)
	}
	if got := s.Wait(t, 2)[0]; got.Text != "one\ntwo\n" || got.Header.Get("Message-Id") != a.Reference {
		t.Errorf("%q %q", got.Text, got.Header.Get("Message-Id"))
	}
}

func TestWhatCannotBeComposedIsJudgedByWhy(t *testing.T) {
	s := mailtest.Start(t, mailtest.Config{})
	for name, tt := range map[string]struct {
		err     error
		verdict outbox.Verdict
		words   string
	}{
		"the user is gone":              {muster.Errorf(muster.NotFound, "there is no such user"), outbox.Dropped, "there is no such user"},
		"the template is broken":        {muster.Errorf(muster.Invalid, "the template has no such field"), outbox.Dead, "no such field"},
		"the store is away":             {muster.Errorf(muster.Unavailable, "the store is away"), outbox.Again, "the store is away"},
		"a fault of ours tells nothing": {errors.New("token abc at line 3"), outbox.Again, "internal error"},
	} {
		t.Run(name, func(t *testing.T) {
			ch := email.NewChannel(mailer(t, s), func(context.Context, []outbox.Delivery) (email.Mail, error) { return email.Mail{}, tt.err })
			a := ch.Deliver(t.Context(), []outbox.Delivery{{ID: "dlv_1"}})
			if a.Verdict != tt.verdict || !strings.Contains(a.Error, tt.words) || strings.Contains(a.Error, "abc") {
				t.Errorf("%+v", a)
			}
		})
	}
	if len(s.Mails()) != 0 {
		t.Error("something was sent")
	}
}

func TestTheCodesOfTheServerAreInTheAttempt(t *testing.T) {
	for name, tt := range map[string]struct {
		step    mailtest.Step
		fault   mailtest.Fault
		verdict outbox.Verdict
		status  int
		alone   bool
		refused bool // surely nobody was told
	}{
		"grey listing":         {mailtest.To, mailtest.Fault{Code: 451, Text: "later"}, outbox.Again, 451, true, true},
		"an unknown recipient": {mailtest.To, mailtest.Fault{Code: 550, Text: "no"}, outbox.Dead, 550, false, true},
		"a refused password":   {mailtest.SignIn, mailtest.Fault{Code: 535, Text: "no"}, outbox.Again, 535, false, true},
		"a cut connection":     {mailtest.Content, mailtest.Fault{HangUp: true}, outbox.Again, 0, false, false},
		"a refused text":       {mailtest.Content, mailtest.Fault{Code: 452, Text: "full"}, outbox.Again, 452, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := mailtest.Start(t, mailtest.Config{User: "muster", Password: secret})
			s.Fail(tt.step, tt.fault)
			a := email.NewChannel(mailer(t, s), compose).Deliver(t.Context(), []outbox.Delivery{{ID: "dlv_1", Body: []byte("x")}})
			if a.Verdict != tt.verdict || a.Status != tt.status || a.Alone != tt.alone || a.Refused != tt.refused {
				t.Errorf("%+v", a)
			}
		})
	}
}

func TestARefusedSTARTTLSIsForNow(t *testing.T) {
	s := mailtest.Start(t, mailtest.Config{}) // it offers none
	m, err := email.New(email.Config{URL: s.URL("a@b.example", "starttls", "required"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	a := email.NewChannel(m, compose).Deliver(t.Context(), []outbox.Delivery{{ID: "dlv_1", Body: []byte("x")}})
	if a.Verdict != outbox.Again || a.Error == "" || !a.Refused || len(s.Mails()) != 0 {
		t.Errorf("%+v, %d mails", a, len(s.Mails()))
	}
}
