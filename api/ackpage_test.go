package api_test

import (
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"muster/accounts"
	"muster/api"
	"muster/notify"
)

// linked is a notification in the inbox of bob, with his ack link.
type linked struct {
	*rig
	ann, bob someone
	id, path string
}

func newLinked(t *testing.T, topic, notification object, change ...func(*api.Deps)) *linked {
	t.Helper()
	l := &linked{rig: newRig(t, change...)}
	l.ann, l.bob = l.enters("ann", accounts.Operator), l.enters("bob", accounts.Viewer)
	topic["name"] = "t"
	l.bob.subscribes(l.ann.topic(topic))
	notification["topic"] = "t"
	l.id = l.ann.sends(notification)
	l.path = l.linkOf(l.bob.id)
	return l
}

func (l *linked) linkOf(subject string) string {
	return strings.TrimPrefix(l.notify.AckLink(l.id, notify.Subject(subject)), publicURL)
}

func (l *linked) state() string {
	l.Helper()
	return field(l.ann.do("GET", "/notifications/"+l.id, nil).wantStatus(l, 200).decode(l), "notification", "state")
}

// acks sends the page's form.
func (l *linked) acks(note string, options ...option) answer {
	l.Helper()
	return l.do("POST", l.path, url.Values{"note": {note}}.Encode(), append([]option{header("Content-Type", "application/x-www-form-urlencoded")}, options...)...)
}

// wantPage checks that an answer is a page that asks for nothing from anywhere.
func (a answer) wantPage(t *testing.T, status int, words ...string) {
	t.Helper()
	a.wantStatus(t, status)
	text, h := string(a.body), a.Header
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(text)
	if style == nil {
		t.Fatalf("there is no style in %s", text)
	}
	sum := sha256.Sum256([]byte(style[1]))
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
		"Referrer-Policy":         "no-referrer", "X-Robots-Tag": "noindex, nofollow", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8",
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Set-Cookie": "", "Access-Control-Allow-Origin": "",
	} {
		if h.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, h.Get(name), want)
		}
	}
	if found := regexp.MustCompile(`(?i)<script|<img|<link|<iframe|\ssrc=|url\(|@import|\son[a-z]+=|\sstyle=`).FindString(text); found != "" {
		t.Errorf("the page has %q: %s", found, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("the page does not say %q: %s", w, text)
		}
	}
}

func TestAnAckLinkShowsAndOnlyItsFormAcks(t *testing.T) {
	l := newLinked(t, object{"title": "Cold chain"}, object{"title": "Pump 1", "body": "It\nleaks", "severity": "major", "link": "https://muster.example/x?a=1&b=2"})
	for range 3 { // as mail scanners do
		l.do("GET", l.path, nil).wantPage(t, 200, "Cold chain", "<h1>Pump 1</h1>", "It\nleaks", "Nobody takes care of it yet", "<form method=\"post\"", `href="https://muster.example/x?a=1&amp;b=2"`, "sent by ann")
	}
	if head := l.do("HEAD", l.path, nil).wantStatus(t, 200); len(head.body) != 0 || head.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("HEAD gives %d bytes with %v", len(head.body), head.Header)
	}
	l.do("GET", l.path, nil, header("Purpose", "prefetch"), header("Sec-Fetch-Site", "cross-site")).wantStatus(t, 200)
	if s := l.state(); s != "open" {
		t.Fatalf("looking made it %s", s)
	}
	l.acks("on my way\r\nnow").wantPage(t, 200, "bob takes care of it since", "on my way\nnow")
	l.do("GET", l.path, nil).wantPage(t, 200, "bob takes care of it since")
	if strings.Contains(string(l.do("GET", l.path, nil).body), "<form") {
		t.Error("the form is still there")
	}
	got := l.bob.do("GET", "/notifications/"+l.id, nil).wantStatus(t, 200).decode(t)
	if field(got, "receipt", "door") != "mail" || field(got, "receipt", "note") != "on my way\nnow" || field(got, "notification", "acked_by") != "bob" {
		t.Errorf("it is %v", got)
	}
	l.acks("again").wantPage(t, 200, "on my way")
}

// A browser sends "null" as the origin of a form on a page without referrer, and nothing
// else over plain http: no session is used, and the token is the right.
func TestAnAckLinkNeedsNoSessionAndUsesNone(t *testing.T) {
	for name, options := range map[string][]option{
		"without anything":      nil,
		"a form without origin": {header("Origin", "null")},
		"from a mail program":   {header("Origin", "null"), header("Sec-Fetch-Site", "cross-site")},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLinked(t, object{}, object{"title": "x"})
			ann := option(func(r *http.Request) { l.ann.as(r) })
			l.acks("", append(options, ann)...).wantPage(t, 200, "bob takes care of it")
			if s := l.state(); s != "acked" {
				t.Errorf("it is %s", s)
			}
		})
	}
}

func TestWhatIsSentIsTextOnTheAckPage(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}`
	l := newLinked(t, object{"title": evil}, object{"title": evil, "body": evil})
	escaped := "&lt;script&gt;alert(1)&lt;/script&gt;"
	text := string(l.do("GET", l.path, nil).wantStatus(t, 200).body) + string(l.acks(evil).wantStatus(t, 200).body)
	if strings.Contains(text, "<script") || strings.Contains(text, "<img") || strings.Count(text, escaped) != 9 { // twice title, heading, topic and body; and the note
		t.Errorf("%d times escaped: %s", strings.Count(text, escaped), text)
	}
}

func TestAckLinksThatDoNotWorkSaySoWithTheRightStatus(t *testing.T) {
	l := newLinked(t, object{}, object{"title": "x"})
	head, tag, _ := strings.Cut(strings.TrimPrefix(l.path, "/n/"), ".")
	later := notify.New(l.control, notify.Options{
		People: people{l.accounts}, Devices: l.registry, Key: []byte("0123456789abcdef0123456789abcdef"), URL: func() string { return "" },
		Now: func() time.Time { return time.Now().Add(-31 * 24 * time.Hour) }, Logger: slog.New(slog.DiscardHandler),
	})
	other := base64.RawURLEncoding.EncodeToString([]byte(l.id + "." + l.ann.id + ".zzzzzz"))
	for name, path := range map[string]string{
		"another tag": "/n/" + head + "." + strings.ToUpper(tag), "no tag": "/n/" + head, "a cut tag": "/n/" + head + "." + tag[:len(tag)-1], "another's name": "/n/" + other + "." + tag,
		"an old one": later.AckLink(l.id, notify.Subject(l.bob.id)), "no base64": "/n/%3Cscript%3E." + tag, "a long one": "/n/" + strings.Repeat("x", 2000),
	} {
		t.Run(name, func(t *testing.T) {
			l.do("GET", path, nil).wantPage(t, 403, "This link does not work, or not any more.")
			l.do("POST", path, "note=x", header("Content-Type", "application/x-www-form-urlencoded")).wantPage(t, 403)
		})
	}
	l.do("GET", "/n/", nil).wantPage(t, 404)
	l.do("GET", "/n", nil).wantPage(t, 404)
	l.do("GET", l.path+"/x", nil).wantPage(t, 404)
	for _, method := range []string{"PUT", "DELETE", "PATCH", "OPTIONS"} {
		if a := l.do(method, l.path, nil); a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "GET, HEAD, POST" {
			t.Errorf("%s gives %d", method, a.StatusCode)
		}
	}
	l.do("POST", l.path, "{}", header("Content-Type", "application/json")).wantPage(t, 415)
	l.acks(strings.Repeat("x", 9<<10)).wantPage(t, 413)
	l.do("POST", l.path, "note=%zz", header("Content-Type", "application/x-www-form-urlencoded")).wantPage(t, 400)
	l.acks(strings.Repeat("ü", 300)).wantPage(t, 422, "The note is not plain text of at most 500 bytes.", "<form", strings.Repeat("ü", 300))
	l.acks("a\x00b").wantPage(t, 422)
	if s := l.state(); s != "open" {
		t.Errorf("it is %s", s)
	}
	fresh := l.ann.sends(object{"topic": "t", "title": "gone"})
	link := strings.TrimPrefix(l.notify.AckLink(fresh, notify.Subject(l.bob.id)), publicURL)
	topic, err := l.notify.Topic(notify.Who{Admin: true}, "t")
	l.must(err)
	if _, err := l.control.TrimNotifications(t.Context(), topic.ID, 0, 100); err != nil {
		t.Fatal(err)
	}
	l.do("GET", link, nil).wantPage(t, 404, "The notification is not kept any more.")
	l.do("POST", link, nil).wantPage(t, 404, "The notification is not kept any more.")
}

func TestTheAckLinkOfWhoIsGoneDoesNotWork(t *testing.T) {
	l := newLinked(t, object{}, object{"title": "private matters"})
	l.as("PATCH", "/api/v1/users/"+l.bob.id, object{"disabled": true}).wantStatus(t, 200)
	l.acks("x").wantPage(t, 403)
	a := l.do("GET", l.path, nil)
	a.wantPage(t, 403)
	if strings.Contains(string(a.body), "private matters") || l.state() != "open" {
		t.Errorf("it shows %s", a.body)
	}
}

func TestTheAckPageSaysHowItStands(t *testing.T) {
	t.Run("when nobody is asked", func(t *testing.T) {
		l := newLinked(t, object{"ack_policy": "none"}, object{"title": "x"})
		a := l.do("GET", l.path, nil)
		a.wantPage(t, 200, "It is for your information")
		if strings.Contains(string(a.body), "<form") {
			t.Error("there is a form")
		}
	})
	t.Run("when all are asked", func(t *testing.T) {
		l := newLinked(t, object{"ack_policy": "all"}, object{"title": "first"})
		l.ann.subscribes("t")
		l.id = l.ann.sends(object{"topic": "t", "title": "x"})
		l.path = l.linkOf(l.bob.id)
		l.ann.do("POST", "/notifications/"+l.id+"/ack", nil).wantStatus(t, 200)
		l.do("GET", l.path, nil).wantPage(t, 200, "1 of 2 who were told take care of it.", "<form")
		l.acks("me too").wantPage(t, 200, "bob takes care of it", "me too")
		if s := l.state(); s != "acked" {
			t.Errorf("it is %s", s)
		}
	})
	t.Run("when a user without a name takes care of it", func(t *testing.T) {
		l := newLinked(t, object{}, object{"title": "x"})
		email := "nameless@secret-address.example"
		u, err := l.accounts.CreateUser(t.Context(), accounts.NewUser{Email: email, Role: accounts.Admin, Password: goodPassword})
		l.must(err)
		nameless := someone{l.rig, u.ID, email, withCookie(l.enter(email))}
		nameless.subscribes("t")
		l.id = nameless.sends(object{"topic": "t", "title": "x"})
		l.path = l.linkOf(l.bob.id)
		l.do("GET", l.path, nil).wantPage(t, 200, "sent by the user "+u.ID)
		nameless.do("POST", "/notifications/"+l.id+"/ack", nil).wantStatus(t, 200)
		l.do("GET", l.path, nil).wantPage(t, 200, "The user "+u.ID+" takes care of it since")
	})
	t.Run("when it is over", func(t *testing.T) {
		l := newLinked(t, object{}, object{"title": "x", "dedup_key": "k"})
		l.ann.do("POST", "/notifications", object{"topic": "t", "dedup_key": "k", "resolve": true}).wantStatus(t, 202)
		l.do("GET", l.path, nil).wantPage(t, 200, "It is over since")
		l.acks("late").wantPage(t, 200, "It is over since")
		if s := l.state(); s != "resolved" {
			t.Errorf("a late ack made it %s", s)
		}
	})
}

func TestTheTokenOfAnAckLinkIsInNoLogAndNoMetric(t *testing.T) {
	l := newLinked(t, object{}, object{"title": "x"})
	l.do("GET", l.path, nil).wantStatus(t, 200)
	l.acks("").wantStatus(t, 200)
	token := strings.TrimPrefix(l.path, "/n/")
	text := string(l.do("GET", "/metrics", nil).wantStatus(t, 200).body)
	if strings.Contains(text+l.log.String(), token) || !strings.Contains(text, `route="/n/{token}"`) {
		t.Error("the token is written somewhere, or the route is not counted")
	}
}
