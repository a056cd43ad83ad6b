package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"muster"
	"muster/audit"
)

const (
	totpPeriod    = 30 // seconds
	totpSkew      = 1  // steps before and after that are taken
	totpLife      = 10 * time.Minute
	maxPending    = 1000 // second factors that are being set up; one more forgets the oldest
	recoveryCodes = 8
	recoveryChars = 16 // of base32: 80 bits
)

// TOTPSetup is what an authenticator is given (RFC 6238): the secret in base32, and as
// a URI for a QR code.
type TOTPSetup struct{ Secret, URI string }

// newTOTP is a secret that waits for its first code.
type newTOTP struct {
	secret string
	at     muster.Micros
}

// BeginTOTP makes a secret for the user's second factor. ConfirmTOTP takes it into use
// within 10 minutes; a restart forgets it. Conflict when there is one already or the
// user has no password; Unavailable without a Sealer.
func (a *Accounts) BeginTOTP(_ context.Context, user string) (TOTPSetup, error) {
	if a.cfg.Sealer == nil {
		return TOTPSetup{}, muster.Errorf(muster.Unavailable, "second factors cannot be kept here")
	}
	r, err := a.record(user)
	switch {
	case err != nil:
		return TOTPSetup{}, err
	case r.TOTP != "":
		return TOTPSetup{}, muster.Errorf(muster.Conflict, "there is a second factor already: remove it first")
	case r.Password == "":
		return TOTPSetup{}, muster.Errorf(muster.Conflict, "this account has no password, and its second factor is the provider's")
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Muster", AccountName: r.Email})
	if err != nil {
		return TOTPSetup{}, fmt.Errorf("make a secret: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.secrets[user]; !ok && len(a.secrets) >= maxPending {
		a.forgetOldest()
	}
	a.secrets[user] = newTOTP{secret: key.Secret(), at: muster.MicrosOf(a.now())}
	return TOTPSetup{Secret: key.Secret(), URI: key.URL()}, nil
}

// forgetOldest is called with the lock held.
func (a *Accounts) forgetOldest() {
	oldest := ""
	for user, s := range a.secrets {
		if oldest == "" || s.at < a.secrets[oldest].at {
			oldest = user
		}
	}
	delete(a.secrets, oldest)
}

func (s newTOTP) over(at muster.Micros) bool {
	return at >= s.at+muster.Micros(totpLife.Microseconds())
}

func (a *Accounts) forgetSecrets(at muster.Micros) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for user, s := range a.secrets {
		if s.over(at) {
			delete(a.secrets, user)
		}
	}
}

// ConfirmTOTP takes the second factor into use that BeginTOTP made, once code shows
// that the authenticator has it, and returns 8 recovery codes, which are shown this
// once. The code cannot be used again to sign in. Conflict when nothing was begun,
// Invalid when the code is wrong, a WaitError after too many.
func (a *Accounts) ConfirmTOTP(ctx context.Context, user, code string) (recovery []string, err error) {
	if err := a.codes.take(a.now(), user, codeRate()); err != nil {
		return nil, err
	}
	err = a.change(ctx, func(ctx context.Context) error {
		r, err := a.record(user)
		if err != nil {
			return err
		}
		a.mu.RLock()
		s, ok := a.secrets[user]
		a.mu.RUnlock()
		if !ok || s.over(muster.MicrosOf(a.now())) || r.TOTP != "" {
			return muster.Errorf(muster.Conflict, "no second factor is being set up: begin again")
		}
		step, ok, err := matching(s.secret, digits(code), 0, a.now())
		if err != nil {
			return err
		}
		if !ok {
			return muster.Errorf(muster.Invalid, "the code is wrong: check the clock of the device it comes from")
		}
		recovery, err = a.takeTOTP(ctx, r, s.secret, step)
		return err
	})
	if err != nil {
		return nil, err
	}
	a.codes.reset(user)
	return recovery, nil
}

// takeTOTP is called in turn.
func (a *Accounts) takeTOTP(ctx context.Context, r UserRecord, secret string, step int64) ([]string, error) {
	sealed, err := a.cfg.Sealer.Seal([]byte(secret), totpBind(r.ID))
	if err != nil {
		return nil, fmt.Errorf("seal the second factor: %w", err)
	}
	old := r
	r.TOTP, r.TOTPStep, r.Recovery = base64.StdEncoding.EncodeToString(sealed), step, nil
	codes := make([]string, recoveryCodes)
	for i := range codes {
		c := rand.Text()[:recoveryChars]
		codes[i] = c[:4] + "-" + c[4:8] + "-" + c[8:12] + "-" + c[12:]
		r.Recovery = append(r.Recovery, recoveryHash(c))
	}
	audit.Note(ctx, "user.totp_on", "users/"+r.ID, viewOfUser(old), viewOfUser(r))
	if err := a.commit(ctx, Batch{Users: []UserRecord{r}}); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.secrets, r.ID)
	return codes, nil
}

// DropTOTP removes the user's own second factor. Forbidden when the password is wrong,
// Conflict when there is none, a WaitError after too many tries.
func (a *Accounts) DropTOTP(ctx context.Context, user, password string) error {
	r, err := a.record(user)
	if err != nil {
		return err
	}
	if r.TOTP == "" {
		return errNoTOTP()
	}
	if err := a.ask(ctx, r, password); err != nil {
		return err
	}
	return a.ClearTOTP(ctx, user)
}

// ClearTOTP removes a user's second factor for an admin, when the device is lost.
// NotFound, or Conflict when there is none.
func (a *Accounts) ClearTOTP(ctx context.Context, user string) error {
	return a.change(ctx, func(ctx context.Context) error {
		old, err := a.record(user)
		if err != nil {
			return err
		}
		if old.TOTP == "" {
			return errNoTOTP()
		}
		r := old
		r.TOTP, r.TOTPStep, r.Recovery = "", 0, nil
		audit.Note(ctx, "user.totp_off", "users/"+r.ID, viewOfUser(old), viewOfUser(r))
		return a.commit(ctx, Batch{Users: []UserRecord{r}})
	})
}

func errNoTOTP() error { return muster.Errorf(muster.Conflict, "there is no second factor") }

// useCode is called in turn. It returns r after code was used: a time step counts once,
// and so does a recovery code; the caller stores r.
func (a *Accounts) useCode(r UserRecord, code string) (UserRecord, error) {
	if code == "" {
		return r, &NeedCodeError{}
	}
	if err := a.codes.take(a.now(), r.ID, codeRate()); err != nil {
		return r, err
	}
	if d := digits(code); len(d) == 6 {
		step, ok, err := a.matchTOTP(r, d)
		if err != nil {
			return r, err
		}
		if !ok {
			return r, errLogin()
		}
		r.TOTPStep = step
		a.codes.reset(r.ID)
		return r, nil
	}
	hash := recoveryHash(code)
	i := slices.IndexFunc(r.Recovery, func(h string) bool { return subtle.ConstantTimeCompare([]byte(h), []byte(hash)) == 1 })
	if i < 0 {
		return r, errLogin()
	}
	r.Recovery = slices.Delete(slices.Clone(r.Recovery), i, i+1)
	a.codes.reset(r.ID)
	return r, nil
}

func (a *Accounts) matchTOTP(r UserRecord, code string) (step int64, ok bool, err error) {
	if a.cfg.Sealer == nil {
		return 0, false, muster.Errorf(muster.Unavailable, "the second factor cannot be read here: use a recovery code")
	}
	sealed, err := base64.StdEncoding.DecodeString(r.TOTP)
	if err != nil {
		return 0, false, fmt.Errorf("read the second factor: %w", err)
	}
	secret, err := a.cfg.Sealer.Open(sealed, totpBind(r.ID))
	if err != nil {
		return 0, false, muster.Errorf(muster.Unavailable, "the second factor cannot be read: use a recovery code: %w", err)
	}
	return matching(string(secret), code, r.TOTPStep, a.now())
}

// matching returns the time step after last whose code is code, among the one at now
// and totpSkew to each side (RFC 6238, section 5.2). All are computed, whichever matches.
func matching(secret, code string, last int64, now time.Time) (step int64, ok bool, err error) {
	at := now.Unix() / totpPeriod
	for s := at - totpSkew; s <= at+totpSkew; s++ {
		want, err := hotp.GenerateCodeCustom(secret, uint64(s), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err != nil {
			return 0, false, fmt.Errorf("compute a code: %w", err)
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && s > last && !ok {
			step, ok = s, true
		}
	}
	return step, ok, nil
}

// totpBind is what a sealed secret is for.
func totpBind(user string) string { return "totp:" + user }

// digits is a code without the spaces that authenticators show.
func digits(code string) string {
	if len(code) > maxSecret {
		return ""
	}
	d := strings.ReplaceAll(code, " ", "")
	if strings.ContainsFunc(d, func(r rune) bool { return r < '0' || r > '9' }) {
		return ""
	}
	return d
}

func recoveryHash(code string) string {
	code = strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code[:min(len(code), maxSecret)]))
	h := sha256.Sum256([]byte(code))
	return hex.EncodeToString(h[:])
}
