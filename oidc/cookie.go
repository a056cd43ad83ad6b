package oidc

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"muster"
)

const (
	attemptTime = 10 * time.Minute // for a person to sign in at the provider
	cookieName  = "muster-oidc"
	hostPrefix  = "__Host-" // binds a cookie to this host, over https
	maxCookie   = 3500      // bytes; browsers keep 4096
	maxUsed     = 10_000    // attempts remembered as used; one more forgets the oldest
)

// attempt is what one browser must bring back. It is kept in its cookie, sealed, and
// nowhere else: who did not start cannot finish.
type attempt struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // of PKCE
	Next     string `json:"p"`
	Begun    int64  `json:"b"` // Unix seconds
}

// sealBind is what a sealed attempt is for.
func (p *OpenID) sealBind() string { return "oidc:" + p.cfg.Issuer + " " + p.cfg.ClientID }

func (p *OpenID) cookie(value string) *http.Cookie {
	c := &http.Cookie{
		Name: cookieName, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, // it comes back from another site
		MaxAge: int(attemptTime / time.Second),
	}
	if strings.HasPrefix(p.cfg.URL(), "https://") {
		c.Name, c.Secure = hostPrefix+cookieName, true
	}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// keep puts at into the browser.
func (p *OpenID) keep(w http.ResponseWriter, at *attempt) error {
	text, err := json.Marshal(at)
	if err != nil {
		return fmt.Errorf("write the attempt: %w", err)
	}
	sealed, err := p.cfg.Sealer.Seal(text, p.sealBind())
	if err != nil {
		return fmt.Errorf("seal the attempt: %w", err)
	}
	http.SetCookie(w, p.cookie(base64.RawURLEncoding.EncodeToString(sealed)))
	return nil
}

// take takes the attempt out of the browser, which must have begun it with this state, and
// not too long ago.
func (p *OpenID) take(w http.ResponseWriter, r *http.Request, state string) (*attempt, error) {
	c, err := r.Cookie(p.cookie("x").Name)
	if err != nil || len(c.Value) > maxCookie {
		return nil, errAgain()
	}
	http.SetCookie(w, p.cookie(""))
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return nil, errAgain()
	}
	text, err := p.cfg.Sealer.Open(sealed, p.sealBind())
	if err != nil {
		return nil, errAgain()
	}
	var at attempt
	if err := json.Unmarshal(text, &at); err != nil {
		return nil, errAgain()
	}
	now := p.cfg.Now()
	age := now.Sub(time.Unix(at.Begun, 0))
	if subtle.ConstantTimeCompare([]byte(at.State), []byte(state)) != 1 || age < -time.Minute || age > attemptTime {
		return nil, errAgain()
	}
	if !p.used.first(at.State, now) {
		return nil, errAgain()
	}
	return &at, nil
}

func errAgain() error {
	return muster.Errorf(muster.Forbidden, "this sign-in was not begun in this browser, or took too long: begin again")
}

// usedStates remembers which attempts were finished, for as long as their cookies count.
type usedStates struct {
	mu    sync.Mutex
	until map[string]time.Time
	order []string // oldest first
}

// first says whether state is finished for the first time.
func (u *usedStates) first(state string, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.order) > 0 && (len(u.order) >= maxUsed || now.After(u.until[u.order[0]])) {
		delete(u.until, u.order[0])
		u.order = u.order[1:]
	}
	if _, used := u.until[state]; used {
		return false
	}
	u.until[state] = now.Add(attemptTime + time.Minute)
	u.order = append(u.order, state)
	return true
}
