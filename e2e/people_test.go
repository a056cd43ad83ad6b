package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"muster/oidc/oidctest"
)

const (
	firstPassword  = "correct horse battery"
	secondPassword = "another good staple"
)

// fill types into the fields of a form by their names, over what they hold.
func (b *tab) fill(form string, pairs ...string) {
	b.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		field := fmt.Sprintf("%s [name=%s]", form, pairs[i])
		b.wait(field, fmt.Sprintf("document.querySelector(%q)", field))
		evaluate[bool](b, fmt.Sprintf("(document.querySelector(%q).select(), true)", field))
		b.do(chromedp.SendKeys(chromedp.CSS(field), pairs[i+1]))
	}
}

func (b *tab) says(selector, text string) {
	b.t.Helper()
	b.wait(selector+" to say "+text, fmt.Sprintf("[...document.querySelectorAll(%q)].map(e => e.textContent).join(' ').includes(%q)", selector, text))
}

// lies is whether an element lies where it lay when it was asked the last time: a click goes to a place.
const lies = `(e => {
	const before = e?.liesAt, at = e && JSON.stringify(e.getBoundingClientRect());
	if (e) e.liesAt = at;
	return at && before === at;
})(document.querySelector(%q))`

func (b *tab) press(selector string) {
	b.t.Helper()
	b.wait(selector+" to lie still", fmt.Sprintf(lies, selector))
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// known drops what the browser itself writes about refusals that the test asked for, and
// requests to a provider.
func (b *tab) known(provider string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errors = slices.DeleteFunc(b.errors, func(e string) bool { return strings.Contains(e, "the server responded with a status of 4") })
	b.foreign = slices.DeleteFunc(b.foreign, func(u string) bool { return strings.HasPrefix(u, provider+"/") })
}

func (b *tab) labelled() {
	b.t.Helper()
	bare := evaluate[string](b, `[...document.querySelectorAll("main input, main select, main button")]
		.filter(e => !e.labels?.length && !e.getAttribute("aria-label") && !e.textContent.trim()).map(e => e.outerHTML).join("\n")`)
	if bare != "" {
		b.t.Errorf("nobody hears what these are: %s", bare)
	}
}

// TestFromTheSetupLinkToASecondAdmin walks the way of people: the first admin makes an
// account, turns a second factor on, invites another; that one comes in by the link, signs
// out and in again, and by the provider.
func TestFromTheSetupLinkToASecondAdmin(t *testing.T) {
	p := oidctest.New()
	t.Cleanup(p.Close)
	p.SetUser(oidctest.User{Subject: "eve", Email: "eve@example.com", Verified: true, Name: "Eve Lind"})
	t.Setenv("MUSTER_OIDC_CLIENT_SECRET", oidctest.ClientSecret)
	m := serve(t, "--oidc-issuer", p.Issuer(), "--oidc-client-id", oidctest.ClientID, "--oidc-create", "--oidc-name", "Test ID")
	b := openTab(t, m)
	b.do(chromedp.Navigate(m.setupLink()))
	b.fill(".setup", "name", "Root", "email", "root@example.com", "password", "short\r")
	b.says(".setup .error", "10")
	b.fill(".setup", "password", firstPassword+"\r")
	b.wait("the form to go", `!document.querySelector(".setup")`)
	secret := b.secondFactor()
	link := b.invites("ada@example.com", "admin")
	b.signsOut()
	b.do(chromedp.Navigate(link))
	b.wait("the token to leave the address bar", `location.pathname === "/invite"`)
	b.labelled()
	b.fill(".signin", "name", "Ada Kern", "password", secondPassword+"\r")
	b.says(".rail", "Users")
	b.makesAKey()
	b.signsOut()
	b.fill(".signin", "email", "root@example.com", "password", secondPassword+"\r")
	b.says(".signin .error", "wrong")
	b.fill(".signin", "password", firstPassword+"\r")
	code, err := totp.GenerateCodeCustom(secret, time.Now().Add(30*time.Second), totp.ValidateOpts{Period: 30, Digits: otp.DigitsSix})
	if err != nil {
		t.Fatal(err)
	}
	b.fill(".signin", "code", code+"\r") // of the next half minute: the first one was used to turn it on
	b.says(".rail", "Users")
	b.signsOut()
	b.says(".ways", "Sign in with Test ID")
	b.do(chromedp.Navigate(evaluate[string](b, `document.querySelector(".ways a.btn").href`))) // waits until it has come back
	b.wait("Eve to be in", `document.querySelector(".ava")?.title.includes("Eve Lind")`)
	if got := evaluate[string](b, `document.querySelector(".rail").textContent`); strings.Contains(got, "Users") {
		t.Errorf("a viewer's rail says %s", got)
	}
	b.known(p.Issuer())
}

// secondFactor turns one on at the account's page and returns its secret.
func (b *tab) secondFactor() string {
	b.t.Helper()
	b.press(`.rail a[href="/account"]`)
	b.says("#account-title", "My account")
	b.says(".sessions tbody", "this one")
	b.labelled()
	b.press(".totp .btn.pri")
	b.wait("the QR code", `document.querySelector(".qr path")?.getAttribute("d").length > 500`)
	secret := evaluate[string](b, `document.querySelector(".totp .copyline code").textContent`)
	b.fill(".totp", "code", "000000\r")
	b.says(".totp .error", "wrong")
	code, err := totp.GenerateCodeCustom(secret, time.Now(), totp.ValidateOpts{Period: 30, Digits: otp.DigitsSix})
	if err != nil {
		b.t.Fatal(err)
	}
	b.fill(".totp", "code", code+"\r")
	b.says(".totp", "recovery codes")
	return secret
}

// invites invites somebody and returns the link.
func (b *tab) invites(email, role string) string {
	b.t.Helper()
	b.press(`.rail a[href="/users"]`)
	b.says(".users tbody", "root@example.com")
	b.labelled()
	evaluate[bool](b, fmt.Sprintf(`(s => { s.value = %q; s.dispatchEvent(new Event("change", {bubbles: true})); return true; })(document.querySelector("#invite-role"))`, role))
	b.fill(".invite", "email", "root@example.com\r")
	b.says(".invite .error", "already")
	b.fill(".invite", "email", email+"\r")
	b.says(".users tbody", "invited")
	return evaluate[string](b, `document.querySelector(".invite .copyline code").textContent`)
}

func (b *tab) makesAKey() {
	b.t.Helper()
	b.press(`.rail a[href="/keys"]`)
	b.says("#makekey-title", "Make an API key")
	b.labelled()
	b.fill(".makekey", "name", "third party\r")
	b.says(".makekey .error", "at least one scope")
	b.press(".makekey fieldset .check")
	b.press(".makekey .btn.pri")
	b.wait("the key", `document.querySelector(".makekey .copyline code")?.textContent.startsWith("mst_")`)
	b.says(".keys tbody", "third party")
}

func (b *tab) signsOut() {
	b.t.Helper()
	b.press(`.rail a[href="/account"]`)
	b.press(`[aria-labelledby="account-title"] header .btn`)
	b.says(".signin h1", "Sign in")
	b.labelled()
}
