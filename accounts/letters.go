package accounts

import (
	"crypto/rand"
	"html"
	"strings"
	"unicode"
)

// write makes a mail of some paragraphs; the one that is link becomes one in HTML.
func write(to, subject, link string, paragraphs ...string) Mail {
	var h strings.Builder
	for _, p := range paragraphs {
		if p == link {
			p = `<a href="` + html.EscapeString(link) + `">` + html.EscapeString(link) + `</a>`
		} else {
			p = html.EscapeString(p)
		}
		h.WriteString("<p>" + p + "</p>\n")
	}
	return Mail{
		To: to, Subject: subject, Text: strings.Join(paragraphs, "\n\n") + "\n", HTML: h.String(), Key: "mail_" + rand.Text(),
	}
}

func inviteMail(to, by, link string) Mail {
	who := "You are invited"
	if by = plain(by); by != "" {
		who = by + " invites you"
	}
	return write(to, "Your invitation to Muster", link,
		who+" to Muster, the telemetry platform at this address. Choose a name and a password here within 7 days:", link,
		"If you do not know what this is about, you need not do anything.")
}

func confirmMail(to, link string) Mail {
	return write(to, "Confirm your e-mail address", link,
		"This address was entered for an account at Muster. Confirm within 24 hours that it is yours:", link,
		"If it was not you, you need not do anything.")
}

func resetMail(to, link string) Mail {
	return write(to, "Set a new password", link,
		"Somebody asked for a new password for your account at Muster. Set it here within one hour:", link,
		"If it was not you, you need not do anything: your password stays as it is.")
}

func changedMail(to string) Mail {
	return write(to, "Your password was changed", "",
		"The password of your account at Muster was changed, and all other sessions were ended.",
		"If it was not you, tell an admin at once.")
}

func movingMail(to string) Mail {
	return write(to, "Your e-mail address is to be changed", "",
		"Somebody who knows your password asked for another e-mail address for your account at Muster. It changes once the new address is confirmed.",
		"If it was not you, change your password at once and tell an admin.")
}

// plain is a name as it may stand in a mail to a stranger: not long, on one line, and
// nothing that mail programs make a link of.
func plain(name string) string {
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || strings.ContainsRune("/:.<>@\\", r) {
			return ' '
		}
		return r
	}, name)
	if r := []rune(name); len(r) > 60 {
		name = string(r[:60])
	}
	return strings.TrimSpace(name)
}
