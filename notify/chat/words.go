package chat

import (
	"cmp"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxTitle = 240  // bytes; Pushover takes 250 characters
	maxText  = 1000 // bytes; Pushover takes 1024 characters, all others more
)

// event is what is said of an event's body.
type event struct {
	Type string `json:"type"`
	Data struct {
		Device   string `json:"device"`
		Title    string `json:"title"`
		Body     string `json:"body"`
		Severity string `json:"severity"`
		Link     string `json:"link"`
		AckedBy  string `json:"acked_by"`
	} `json:"data"`
}

// wording words an event: of a notification its severity, title, body and link, of any other
// its type and device in one line. title and text are never empty.
func wording(body []byte) (title, text string) {
	var e event
	_ = json.Unmarshal(body, &e) // what is not understood is left out
	d := &e.Data
	if d.Title == "" || !strings.HasPrefix(e.Type, "notification.") {
		line := oneLine(e.Type+" "+cmp.Or(d.Device, d.Severity), maxTitle)
		return "Muster", cmp.Or(line, "an event")
	}
	switch e.Type {
	case "notification.acked":
		title = "Acknowledged by " + cmp.Or(d.AckedBy, "somebody") + ": "
	case "notification.resolved":
		title = "Over: "
	default:
		title = "[" + cmp.Or(d.Severity, "info") + "] "
	}
	title = oneLine(title+d.Title, maxTitle)
	link := ""
	if d.Link != "" && len(d.Link) < maxText {
		link = d.Link
	}
	text = cut(plain(d.Body), max(0, maxText-len(link)-1))
	text = strings.TrimSpace(text + "\n" + link)
	return title, cmp.Or(text, title)
}

// oneLine is s as one line of at most n bytes.
func oneLine(s string, n int) string { return cut(strings.Join(strings.Fields(plain(s)), " "), n) }

// plain is s without control characters but line breaks and tabs.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// cut shortens s to n bytes, and shows that it did.
func cut(s string, n int) string {
	const mark = "…"
	if len(s) <= n {
		return s
	}
	if n < len(mark) {
		return ""
	}
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}
