package api_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"muster/accounts"
	devicequery "muster/devices/query"
)

const (
	publicURL    = "https://muster.example"
	goodPassword = "correct horse battery"
	nextPassword = "another good staple"
)

// vault is an accounts.Sealer with a key of its own.
type vault struct{ cipher.AEAD }

func newVault() vault {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil { // the key has 32 bytes
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil { // the block is of AES
		panic(err)
	}
	return vault{aead}
}

func (v vault) Seal(plain []byte, bind string) ([]byte, error) {
	nonce := make([]byte, v.NonceSize())
	rand.Read(nonce)
	return v.AEAD.Seal(nonce, nonce, plain, []byte(bind)), nil
}

func (v vault) Open(sealed []byte, bind string) ([]byte, error) {
	n := min(v.NonceSize(), len(sealed))
	return v.AEAD.Open(nil, sealed[:n], sealed[n:], []byte(bind))
}

// accountsConfig is that of every rig.
func accountsConfig() accounts.Config {
	return accounts.Config{
		URL: func() string { return publicURL }, Sealer: newVault(), CreateUsers: true, LinkByEmail: true,
		CheckSelector: func(s string) error { _, err := devicequery.Parse(s); return err },
	}
}

// outbox is a Mailer that hands mails to a test.
type outbox chan accounts.Mail

func (o outbox) Send(ctx context.Context, m accounts.Mail) error {
	select {
	case o <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mailing gives the rig's accounts a mailer.
func (r *rig) mailing() outbox {
	r.Helper()
	o := make(outbox, 100)
	r.accounts.SetMailer(o)
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	done := make(chan error, 1)
	go func() { done <- r.accounts.RunMail(ctx) }()
	r.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.Errorf("run mail: %v", err)
		}
	})
	return o
}

// token waits for a mail to an address and returns the end of the link in it.
func (o outbox) token(t testing.TB, to, path string) string {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		select {
		case m := <-o:
			found := regexp.MustCompile(regexp.QuoteMeta(publicURL+path) + `([A-Z2-7]{26})`).FindStringSubmatch(m.Text)
			if m.To == to && found != nil {
				return found[1]
			}
		case <-late:
			t.Fatalf("no mail with %s comes to %s", path, to)
		}
	}
}

// person makes a user with a password and returns his id.
func (r *rig) person(email, role string) string {
	r.Helper()
	u, err := r.accounts.CreateUser(r.Context(), accounts.NewUser{Email: email, Role: role, Password: goodPassword})
	r.must(err)
	return u.ID
}

// enter signs a person in and returns his cookie.
func (r *rig) enter(email string) *http.Cookie {
	r.Helper()
	return r.login(object{"email": email, "password": goodPassword})
}

func (r *rig) login(body object, options ...option) *http.Cookie {
	r.Helper()
	a := r.do("POST", "/api/v1/session", body, options...).wantStatus(r, 200)
	if len(a.Cookies()) != 1 || a.Cookies()[0].Value == "" {
		r.Fatalf("signing in sets %v", a.Cookies())
	}
	return a.Cookies()[0]
}

// wantField checks that a is a problem about one field of the body.
func (a answer) wantField(t testing.TB, status int, code, pointer string) {
	t.Helper()
	p := a.wantProblem(t, status, code)
	errs, _ := p["errors"].([]any)
	if len(errs) != 1 || errs[0].(object)["pointer"] != pointer {
		t.Errorf("%s %s: the fault is at %v, want %s", a.Request.Method, a.Request.URL, errs, pointer)
	}
}

func totpCode(t testing.TB, secret string, step int) string {
	t.Helper()
	at := time.Now().Add(time.Duration(step) * 30 * time.Second)
	code, err := totp.GenerateCodeCustom(secret, at, totp.ValidateOpts{Period: 30, Digits: otp.DigitsSix})
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func itemsOf(a answer, t testing.TB) []object {
	t.Helper()
	var out []object
	for _, i := range a.wantStatus(t, 200).decode(t)["items"].([]any) {
		out = append(out, i.(object))
	}
	return out
}

// wantNoSecret checks that none of the secrets is in the log.
func (r *rig) wantNoSecret(secrets ...string) {
	r.Helper()
	log := r.log.String()
	for _, s := range secrets {
		if strings.Contains(log, s) {
			r.Errorf("the log has %.6s...", s)
		}
	}
}
