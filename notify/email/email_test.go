package email_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"muster"
	"muster/notify/email"
	"muster/notify/email/mailtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "p@ss-word-of-the-server"

func clock() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }

func mailer(t *testing.T, s *mailtest.Server, params ...string) *email.Mailer {
	t.Helper()
	m, err := email.New(email.Config{URL: s.URL("Muster <muster@example.org>", params...), Roots: s.Roots(), Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func letter() email.Mail {
	return email.Mail{
		To: "ada@example.com", Subject: "Grüße, Ada", Key: "invite/usr_1",
		Text: "Hello Ada,\n\n.a line with a dot\nhttps://m.example/accept/TOKEN\n", HTML: "<p>Hello <b>Ädä</b></p>\n",
	}
}

func TestAMailArrivesAsTextAndHTML(t *testing.T) {
	tests := []struct {
		name   string
		server mailtest.Config
		params []string
		tls    bool
	}{
		{"in clear text to this machine", mailtest.Config{}, nil, false},
		{"by STARTTLS when it is offered", mailtest.Config{StartTLS: true}, nil, true},
		{"by STARTTLS when it is required", mailtest.Config{StartTLS: true}, []string{"starttls", "required"}, true},
		{"in clear text when TLS is off", mailtest.Config{StartTLS: true}, []string{"starttls", "off"}, false},
		{"over TLS from the first byte", mailtest.Config{TLS: true}, nil, true},
		{"signed in over STARTTLS", mailtest.Config{StartTLS: true, User: "muster", Password: secret}, nil, true},
		{"signed in over TLS", mailtest.Config{TLS: true, User: "muster", Password: secret}, nil, true},
		{"signed in on this machine without TLS", mailtest.Config{User: "muster", Password: secret}, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := mailtest.Start(t, tt.server)
			want := letter()
			if err := mailer(t, s, tt.params...).Send(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			got := s.Wait(t, 1)[0]
			if got.TLS != tt.tls || got.User != tt.server.User || got.From != "muster@example.org" || !cmp.Equal(got.To, []string{want.To}) {
				t.Errorf("TLS %v, user %q, from %q, to %q", got.TLS, got.User, got.From, got.To)
			}
			if d := cmp.Diff([]string{want.Subject, want.Text, want.HTML}, []string{got.Subject, got.Text, got.HTML}); d != "" {
				t.Error(d)
			}
			for name, want := range map[string]string{
				"Auto-Submitted": "auto-generated", "From": `"Muster" <muster@example.org>`, "To": "<ada@example.com>", "User-Agent": "",
				"Date": "Wed, 04 Mar 2026 05:06:07 +0000",
			} {
				if h := got.Header.Get(name); h != want {
					t.Errorf("%s is %q, want %q", name, h, want)
				}
			}
		})
	}
}

func TestTheMessageIDFollowsFromTheKey(t *testing.T) {
	s := mailtest.Start(t, mailtest.Config{})
	m := mailer(t, s)
	for _, key := range []string{"a", "b", "a", "", ""} {
		l := letter()
		l.Key = key
		if err := m.Send(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	ids := make([]string, 0, 5)
	for _, got := range s.Wait(t, 5) {
		ids = append(ids, got.Header.Get("Message-Id"))
	}
	if ids[0] != ids[2] || ids[0] == ids[1] || ids[3] == ids[4] {
		t.Errorf("ids are %q", ids)
	}
	for _, id := range ids {
		if !strings.HasPrefix(id, "<") || !strings.HasSuffix(id, "@example.org>") || len(id) != 32+len("<@example.org>") {
			t.Errorf("id is %q", id)
		}
	}
}

func TestAMailWithoutHTMLHasOnePart(t *testing.T) {
	s := mailtest.Start(t, mailtest.Config{})
	l := letter()
	l.HTML = ""
	if err := mailer(t, s).Send(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	got := s.Wait(t, 1)[0]
	if got.Text != l.Text || got.HTML != "" || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%s: %q %q", got.Header.Get("Content-Type"), got.Text, got.HTML)
	}
}

func TestRefusalsAreToldFromFailures(t *testing.T) {
	refused := func(code int) mailtest.Fault {
		return mailtest.Fault{Code: code, Enhanced: [3]int{code / 100, 1, 1}, Text: "no: " + secret + " TOKEN"}
	}
	tests := []struct {
		name  string
		step  mailtest.Step
		fault mailtest.Fault
		kind  muster.Kind
		words string
	}{
		{"an unknown recipient is for good", mailtest.To, refused(550), muster.Invalid, "refused the recipient (550 5.1.1)"},
		{"a refused sender is for good", mailtest.From, refused(553), muster.Invalid, "refused the sender (553 5.1.1)"},
		{"refused content is for good", mailtest.Content, refused(554), muster.Invalid, "refused the mail (554 5.1.1)"},
		{"grey listing is for now", mailtest.To, refused(451), muster.Unavailable, "refused the recipient (451 4.1.1)"},
		{"a busy server is for now", mailtest.From, refused(421), muster.Unavailable, "refused the sender (421 4.1.1)"},
		{"a full disk is for now", mailtest.Content, refused(452), muster.Unavailable, "refused the mail (452 4.1.1)"},
		{"asking for a password is about us", mailtest.From, refused(530), muster.Unavailable, "refused the sender (530 5.1.1)"},
		{"a refused password is about us", mailtest.SignIn, refused(535), muster.Unavailable, "does not let us in (535)"},
		{"a connection that ends before the first word is for now", mailtest.Greet, mailtest.Fault{HangUp: true}, muster.Unavailable, "cannot be used"},
		{"a connection that ends at the sender is for now", mailtest.From, mailtest.Fault{HangUp: true}, muster.Unavailable, "connection to the mail server broke"},
		{"a connection that ends at the content is for now", mailtest.Content, mailtest.Fault{HangUp: true}, muster.Unavailable, "connection to the mail server broke"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := mailtest.Start(t, mailtest.Config{StartTLS: true, User: "muster", Password: secret})
			m := mailer(t, s)
			s.Fail(tt.step, tt.fault)
			err := m.Send(t.Context(), letter())
			if err == nil || muster.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.words) {
				t.Fatalf("%v %v, want %v %q", muster.KindOf(err), err, tt.kind, tt.words)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "TOKEN") {
				t.Errorf("the error tells what the server repeated: %v", err)
			}
			s.Fail(tt.step, mailtest.Fault{})
			if err := m.Send(t.Context(), letter()); err != nil {
				t.Errorf("it does not work again: %v", err)
			}
		})
	}
}

// chain writes every error of err's chain.
func chain(err error) string {
	var b strings.Builder
	for ; err != nil; err = unwrap(err) {
		fmt.Fprintf(&b, "%v\n", err)
	}
	return b.String()
}

func unwrap(err error) error {
	u, ok := err.(interface{ Unwrap() error })
	if !ok {
		return nil
	}
	return u.Unwrap()
}

func TestNoSecretIsInAnyError(t *testing.T) {
	echo := mailtest.Fault{Code: 500, Text: "what is AUTH PLAIN " + secret + "?"}
	t.Run("the server repeats the password", func(t *testing.T) {
		s := mailtest.Start(t, mailtest.Config{User: "muster", Password: secret})
		s.Fail(mailtest.SignIn, echo)
		if err := mailer(t, s).Send(t.Context(), letter()); err == nil || strings.Contains(chain(err), secret) {
			t.Errorf("%s", chain(err))
		}
	})
	t.Run("the server repeats the text", func(t *testing.T) {
		s := mailtest.Start(t, mailtest.Config{})
		s.Fail(mailtest.Content, mailtest.Fault{Code: 554, Text: "a link to https://m.example/accept/TOKEN"})
		if err := mailer(t, s).Send(t.Context(), letter()); err == nil || strings.Contains(chain(err), "TOKEN") {
			t.Errorf("%s", chain(err))
		}
	})
	for _, url := range []string{
		"smtp://u:" + secret + "@h:port?from=a@b.c", "smtp://u:hunter2%zz@h?from=a@b.c", "http://u:hunter2@h?from=a@b.c",
		"smtp://u:hunter2@h", "smtp://u:hunter2@h?from=no", "smtp://u:hunter2@h?from=a@b.c&starttls=off", "smtp://u:hunter2@h?from=a@b.c&x=1",
		"smtp://u:hunter2@h?from=a@b.c&starttls=maybe", "smtps://u:hunter2@h?from=a@b.c&starttls=required", "smtp://u:hunter2@h/path?from=a@b.c",
		"smtp://u:hunter2@?from=a@b.c", "smtp://u:hunter2@h:0?from=a@b.c", "smtp://u:hunter2@h:65536?from=a@b.c",
		"smtp://u:hunter2@h?from=a@b.c&from=d@e.f", "smtp://u:hunter2@h?from=a%0d%0ab@b.c", "smtp://u:hunter2@h?from=%22a%0d%0aBcc: x%22 <a@b.c>", "",
	} {
		t.Run("the URL "+url, func(t *testing.T) {
			_, err := email.New(email.Config{URL: url, Now: clock})
			if err == nil || muster.KindOf(err) != muster.Invalid || strings.Contains(chain(err), secret) || strings.Contains(chain(err), "hunter2") {
				t.Errorf("%v: %s", muster.KindOf(err), chain(err))
			}
		})
	}
}

func TestRequiredTLSIsNotDoneWithout(t *testing.T) {
	t.Run("the server offers none", func(t *testing.T) {
		s := mailtest.Start(t, mailtest.Config{User: "muster", Password: secret})
		err := mailer(t, s, "starttls", "required").Send(t.Context(), letter())
		if muster.KindOf(err) != muster.Unavailable || len(s.Mails()) != 0 {
			t.Errorf("%v, %d mails", err, len(s.Mails()))
		}
	})
	for _, c := range []mailtest.Config{{StartTLS: true}, {TLS: true}} {
		t.Run(fmt.Sprintf("the server's certificate is nobody's %+v", c), func(t *testing.T) {
			s := mailtest.Start(t, c)
			m, err := email.New(email.Config{URL: s.URL("a@b.example"), Now: clock})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Send(t.Context(), letter()); muster.KindOf(err) != muster.Unavailable || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("%v: %v", muster.KindOf(err), err)
			}
			if len(s.Mails()) != 0 {
				t.Error("the mail was sent all the same")
			}
		})
	}
}

func TestASilentServerEndsWithTheTimeOfOneMail(t *testing.T) {
	for _, step := range []mailtest.Step{mailtest.Greet, mailtest.SignIn, mailtest.From, mailtest.Content} {
		t.Run("at "+string(step), func(t *testing.T) {
			s := mailtest.Start(t, mailtest.Config{User: "muster", Password: secret})
			s.Fail(step, mailtest.Fault{Silence: true})
			m, err := email.New(email.Config{URL: s.URL("a@b.example"), Now: clock, Timeout: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			err = m.Send(t.Context(), letter())
			if muster.KindOf(err) != muster.Unavailable || !strings.Contains(err.Error(), "in time") {
				t.Errorf("%v: %v", muster.KindOf(err), err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	t.Run("or with its caller", func(t *testing.T) {
		s := mailtest.Start(t, mailtest.Config{})
		s.Fail(mailtest.To, mailtest.Fault{Silence: true})
		ctx, cancel := context.WithCancel(t.Context())
		context.AfterFunc(t.Context(), cancel)
		stop := time.AfterFunc(50*time.Millisecond, cancel)
		defer stop.Stop()
		if err := mailer(t, s).Send(ctx, letter()); muster.KindOf(err) != muster.Unavailable || ctx.Err() == nil {
			t.Errorf("%v", err)
		}
	})
}

func TestAConnectionThatEndsAfterTheYesIsNoFailure(t *testing.T) {
	s := mailtest.Start(t, mailtest.Config{})
	s.Fail(mailtest.Taken, mailtest.Fault{HangUp: true})
	if err := mailer(t, s).Send(t.Context(), letter()); err != nil {
		t.Errorf("it would be sent twice: %v", err)
	}
	s.Wait(t, 1)
}

func TestAServerThatIsNotThereIsForNow(t *testing.T) {
	m, err := email.New(email.Config{URL: "smtp://127.0.0.1:1?from=a@b.example", Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Send(t.Context(), letter()); muster.KindOf(err) != muster.Unavailable {
		t.Errorf("%v: %v", muster.KindOf(err), err)
	}
}

func TestWhatCannotBeAMailIsRefusedBeforeItIsSent(t *testing.T) {
	s := mailtest.Start(t, mailtest.Config{})
	m := mailer(t, s)
	tests := map[string]func(*email.Mail){
		"a line break in the subject":             func(l *email.Mail) { l.Subject = "a\r\nBcc: eve@example.com" },
		"a bare line feed in the subject":         func(l *email.Mail) { l.Subject = "a\nb" },
		"a bare carriage return in the subject":   func(l *email.Mail) { l.Subject = "a\rb" },
		"a zero in the subject":                   func(l *email.Mail) { l.Subject = "a\x00b" },
		"a line separator in the subject":         func(l *email.Mail) { l.Subject = "a\u2028b" },
		"no subject":                              func(l *email.Mail) { l.Subject = "" },
		"a long subject":                          func(l *email.Mail) { l.Subject = strings.Repeat("s", 401) },
		"a subject that is not UTF-8":             func(l *email.Mail) { l.Subject = "\xff" },
		"a line break in the address":             func(l *email.Mail) { l.To = "ada@example.com\r\nRCPT TO:<eve@example.com>" },
		"a line break in a quoted address":        func(l *email.Mail) { l.To = "\"a\r\nb\"@example.com" },
		"two addresses":                           func(l *email.Mail) { l.To = "ada@example.com, eve@example.com" },
		"an address with a name":                  func(l *email.Mail) { l.To = "Ada <ada@example.com>" },
		"an address in brackets":                  func(l *email.Mail) { l.To = "<ada@example.com>" },
		"no address":                              func(l *email.Mail) { l.To = "" },
		"a long address":                          func(l *email.Mail) { l.To = strings.Repeat("a", 251) + "@b.c" },
		"a line break in the key":                 func(l *email.Mail) { l.Key = "a\r\nb" },
		"no text":                                 func(l *email.Mail) { l.Text = "" },
		"a text and HTML of more than 256 KiB":    func(l *email.Mail) { l.HTML = strings.Repeat("x", 256<<10) },
		"a text that is not UTF-8":                func(l *email.Mail) { l.Text = "\xff" },
		"an address of which the host is missing": func(l *email.Mail) { l.To = "ada@" },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			l := letter()
			spoil(&l)
			if err := m.Send(t.Context(), l); err == nil || muster.KindOf(err) != muster.Invalid {
				t.Errorf("%v: %v", muster.KindOf(err), err)
			}
		})
	}
	if got := s.Mails(); len(got) != 0 {
		t.Errorf("%d mails were sent", len(got))
	}
}

func TestNoSubjectOrTextMakesAHeaderOfItsOwn(t *testing.T) {
	s := mailtest.Start(t, mailtest.Config{})
	m := mailer(t, s)
	sent := 0
	rapid.Check(t, func(rt *rapid.T) {
		l := letter()
		l.Subject = rapid.StringOfN(rapid.RuneFrom([]rune("aä \r\n:=?_\u2028\U0001F600")), 1, 80, 400).Draw(rt, "subject")
		l.Text = rapid.StringOfN(rapid.RuneFrom([]rune("aä \n.=:\U0001F600")), 1, 300, 2000).Draw(rt, "text")
		err := m.Send(t.Context(), l)
		if strings.ContainsAny(l.Subject, "\r\n\u2028") {
			if muster.KindOf(err) != muster.Invalid {
				rt.Fatalf("%v", err)
			}
			return
		}
		if err != nil {
			rt.Fatalf("%v", err)
		}
		sent++
		got := s.Mails()[sent-1]
		if len(got.To) != 1 || len(got.Header) != 8 {
			rt.Fatalf("to %q, headers %v", got.To, got.Header)
		}
		if strings.TrimSpace(got.Subject) != strings.TrimSpace(l.Subject) || strings.TrimRight(got.Text, "\n") != strings.TrimRight(l.Text, "\n") {
			rt.Fatalf("%q %q became %q %q", l.Subject, l.Text, got.Subject, got.Text)
		}
	})
}
