//go:build shoutrrr

package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/nicholas-fedor/shoutrrr/pkg/format"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/discord"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/googlechat"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/slack"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/telegram"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/push/ntfy"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/push/pushover"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"
)

const (
	contentJSON = "application/json"
	contentForm = "application/x-www-form-urlencoded"
)

// Services returns the chat services that are built in, by the scheme of their URLs. All but
// ntfy have hosts of their own, and ntfy's is judged when it is dialled, like any webhook's.
func Services() map[string]Compose {
	return map[string]Compose{
		discord.Scheme: toDiscord, googlechat.Scheme: toGoogleChat, ntfy.Scheme: toNtfy,
		pushover.Scheme: toPushover, slack.Scheme: toSlack, telegram.Scheme: toTelegram,
	}
}

// toDiscord puts all into an embed, where "@everyone" calls nobody.
func toDiscord(u *url.URL, title, text string) (*http.Request, error) {
	c := &discord.Config{}
	if err := read(c, u, "username", "avatar", "avatarurl", "thread_id"); err != nil {
		return nil, err
	}
	if c.JSON {
		return nil, errors.New("it asks for raw JSON")
	}
	payload, err := discord.CreatePayloadFromItems([]types.MessageItem{{Text: text}}, title, c.LevelColors())
	if err != nil {
		return nil, fmt.Errorf("word it for Discord: %w", err)
	}
	payload.Username, payload.AvatarURL = c.Username, c.Avatar
	return postJSON("discord.com", "/api/webhooks/", discord.CreateAPIURLFromConfig(c), payload)
}

func toGoogleChat(u *url.URL, title, text string) (*http.Request, error) {
	c := &googlechat.Config{}
	if err := read(c, u, "key", "token"); err != nil {
		return nil, err
	}
	if c.Key == "" || c.Token == "" || u.Host != "chat.googleapis.com" {
		return nil, errors.New("it is not chat.googleapis.com with a key and a token")
	}
	to := url.URL{Scheme: "https", Host: u.Host, Path: c.Path, RawQuery: url.Values{"key": {c.Key}, "token": {c.Token}}.Encode()}
	all := strings.ReplaceAll(title+"\n"+text, "<users/", "< users/") // calls people
	return postJSON("chat.googleapis.com", "/v1/spaces/", to.String(), googlechat.JSON{Text: all})
}

// toNtfy is the one service whose host is chosen freely.
func toNtfy(u *url.URL, title, text string) (*http.Request, error) {
	c := &ntfy.Config{}
	resolver := format.NewPropKeyResolver(c)
	if err := resolver.SetDefaultProps(c); err != nil {
		return nil, fmt.Errorf("read ntfy's defaults: %w", err)
	}
	if err := read(c, u, "scheme", "priority", "tags", "disabletls"); err != nil {
		return nil, err
	}
	if c.DisableTLS {
		c.Scheme = "http"
	}
	if strings.Trim(c.Topic, "/") == "" || c.Scheme != "https" && c.Scheme != "http" {
		return nil, errors.New("it has no topic, or another scheme than http and https")
	}
	if c.Host == "" {
		c.Host = "ntfy.sh"
	}
	req, err := post(c.GetAPIURL(), "text/plain; charset=utf-8", []byte(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Title", mime.QEncoding.Encode("utf-8", title))
	req.Header.Set("Priority", c.Priority.String())
	if len(c.Tags) > 0 {
		req.Header.Set("Tags", mime.QEncoding.Encode("utf-8", strings.Join(c.Tags, ",")))
	}
	if c.Username != "" || c.Password != "" {
		req.SetBasicAuth(c.Username, c.Password)
	}
	return req, nil
}

func toPushover(u *url.URL, title, text string) (*http.Request, error) {
	c := &pushover.Config{}
	if err := read(c, u, "devices", "priority"); err != nil {
		return nil, err
	}
	if c.Priority < -2 || c.Priority > 1 {
		return nil, errors.New("the priority is not -2 to 1")
	}
	form := url.Values{
		"token": {c.Token}, "user": {c.User}, "device": {strings.Join(c.Devices, ",")}, "title": {title}, "message": {text},
		"priority": {strconv.Itoa(int(c.Priority))},
	}
	return post("https://api.pushover.net/1/messages.json", contentForm, []byte(form.Encode()))
}

// toSlack knows incoming webhooks only: the API that bots use answers 200 when it refuses.
func toSlack(u *url.URL, title, text string) (*http.Request, error) {
	c := &slack.Config{}
	if err := read(c, u, "botname", "username", "icon", "icon_emoji", "icon_url", "color", "thread_ts"); err != nil {
		return nil, err
	}
	if c.Token.IsAPIToken() {
		return nil, errors.New("it has the token of a bot")
	}
	literal := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;") // "<!channel>" calls people
	c.Title = literal.Replace(title)
	return postJSON("hooks.slack.com", "/services/", c.Token.WebhookURL(), slack.CreateJSONPayload(c, literal.Replace(text)))
}

// toTelegram tells one chat: of several, a second attempt would tell some of them twice.
func toTelegram(u *url.URL, title, text string) (*http.Request, error) {
	c := &telegram.Config{Preview: true, Notification: true}
	if err := read(c, u, "chats", "channels", "preview", "notification"); err != nil {
		return nil, err
	}
	if len(c.Chats) != 1 {
		return nil, errors.New("it names several chats")
	}
	chat, thread, found := strings.Cut(c.Chats[0], ":")
	p := telegram.SendMessagePayload{
		Text: title + "\n" + text, ID: chat, DisablePreview: !c.Preview, DisableNotification: !c.Notification,
	}
	if found {
		n, err := strconv.Atoi(thread)
		if err != nil {
			return nil, fmt.Errorf("read the thread: %w", err)
		}
		p.MessageThreadID = &n
	}
	return postJSON("api.telegram.org", "/bot", "https://api.telegram.org/bot"+c.Token+"/sendMessage", p)
}

// settings are a service's, as its URL has them.
type settings interface{ SetURL(u *url.URL) error }

// read reads u into c. A parameter that is not among known would be left out silently: it is
// refused. The library splits no parameter that comes twice, and says so of none.
func read(c settings, u *url.URL, known ...string) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fmt.Errorf("read the parameters: %w", err)
	}
	for key, values := range query {
		if !slices.Contains(known, strings.ToLower(key)) || len(values) != 1 {
			return errors.New("there is a parameter that is not used, or comes twice")
		}
	}
	if err := c.SetURL(u); err != nil {
		return fmt.Errorf("read the URL of the service: %w", err)
	}
	return nil
}

// postJSON is for services with a host of their own: that a service URL leads elsewhere is
// refused here, whatever the library made of it.
func postJSON(host, path, to string, body any) (*http.Request, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "https" || u.Host != host || u.User != nil || !strings.HasPrefix(u.EscapedPath(), path) ||
		strings.Contains(u.Path, "..") {
		return nil, errors.New("it leads elsewhere")
	}
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("write the message: %w", err)
	}
	return post(to, contentJSON, b)
}

// post has no context: who sends gives it one.
func post(to, content string, body []byte) (*http.Request, error) {
	req, err := http.NewRequest(http.MethodPost, to, bytes.NewReader(body)) //nolint:noctx // see above
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Content-Type", content)
	return req, nil
}
