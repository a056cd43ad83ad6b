package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"muster/api"
	"muster/server"
	"muster/server/servertest"
)

const (
	deleteRounds = 3
	deleteUsers  = 4                       // who use the thing at once
	deleteAfter  = 60 * time.Millisecond   // how long it is used before
	deleteLag    = time.Second             // how long it may still work
	deleteUntil  = 1500 * time.Millisecond // how long it is tried afterwards
)

// contest is a thing that some use while it is deleted.
type contest struct {
	uses   []func() bool // each says whether it worked
	delete func()
	gone   func() bool // it is in no answer any more
}

// contestant makes things on a server and uses them.
type contestant struct {
	*testing.T
	s *server.Server
}

// http sends a request and returns its status and answer; a status of 5xx fails the test.
func (c contestant) http(method, path, key string, body any, cookies ...*http.Cookie) (status int, answer map[string]any) {
	raw, err := json.Marshal(body)
	if err != nil {
		c.Error(err)
		return 0, nil
	}
	if body == nil {
		raw = nil
	}
	req, err := http.NewRequestWithContext(c.Context(), method, "http://"+c.s.HTTPAddr()+path, bytes.NewReader(raw))
	if err != nil {
		c.Error(err)
		return 0, nil
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for _, k := range cookies {
		req.AddCookie(k)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.Errorf("%s %s: %v", method, path, err)
		return 0, nil
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 500 {
		c.Errorf("%s %s gives %d %s, %v", method, path, res.StatusCode, text, err)
	}
	if strings.HasSuffix(res.Header.Get("Content-Type"), "json") && !strings.Contains(res.Header.Get("Content-Type"), "ndjson") {
		if err := json.Unmarshal(text, &answer); err != nil {
			c.Errorf("%s %s gives what is not JSON: %v", method, path, err)
		}
	}
	return res.StatusCode, answer
}

func (c contestant) admin(method, path string, body any) (int, map[string]any) {
	return c.http(method, "/api/v1"+path, servertest.AdminKey, body)
}

// made makes a thing and returns the answer.
func (c contestant) made(path string, body any) map[string]any {
	c.Helper()
	status, answer := c.admin(http.MethodPost, path, body)
	if status/100 != 2 {
		c.Fatalf("POST %s gives %d %v", path, status, answer)
	}
	return answer
}

// request is a use that is one request; it works when it is answered with 2xx.
func (c contestant) request(method, path, key string, body any, cookies ...*http.Cookie) func() bool {
	return func() bool {
		status, _ := c.http(method, "/api/v1"+path, key, body, cookies...)
		return status/100 == 2
	}
}

// mqtt is a use that is a connection with one message.
func (c contestant) mqtt(user, password, topic string) func() bool {
	var n atomic.Int64
	return func() bool {
		o := mqtt.NewClientOptions().AddBroker("tcp://" + c.s.MQTTAddr()).SetClientID(fmt.Sprintf("%s-%d", strings.ReplaceAll(c.Name(), "/", "-"), n.Add(1))).
			SetUsername(user).SetPassword(password).SetAutoReconnect(false).SetConnectRetry(false)
		m := mqtt.NewClient(o)
		if tok := m.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			return false
		}
		defer m.Disconnect(0)
		lost := m.Publish(topic, 0, false, `{"n":1}`)
		return lost.WaitTimeout(time.Second) && lost.Error() == nil && m.IsConnectionOpen()
	}
}

func (c contestant) deletes(path string) (remove func(), gone func() bool) {
	return func() {
			if status, answer := c.admin(http.MethodDelete, path, nil); status/100 != 2 {
				c.Errorf("DELETE %s gives %d %v", path, status, answer)
			}
		}, func() bool {
			path, _, _ := strings.Cut(path, "?")
			status, _ := c.admin(http.MethodGet, path, nil)
			return status == http.StatusNotFound
		}
}

// lists says whether an id is in a list no more, for what cannot be asked for alone.
func (c contestant) lists(path, id string) func() bool {
	return func() bool {
		_, answer := c.admin(http.MethodGet, path, nil)
		text, err := json.Marshal(answer["items"])
		return err == nil && answer != nil && !bytes.Contains(text, []byte(`"`+id+`"`))
	}
}

func of(answer map[string]any, names ...string) string {
	for _, n := range names[:len(names)-1] {
		answer, _ = answer[n].(map[string]any)
	}
	text, _ := answer[names[len(names)-1]].(string)
	return text
}

func (c contestant) key(int) contest {
	made := c.made("/api-keys", map[string]any{"name": "k", "scopes": []string{"devices:read", "mqtt", "topics:write"}})
	key := of(made, "secret")
	var t contest
	t.uses = []func() bool{
		c.request(http.MethodGet, "/devices/d", key, nil), c.request(http.MethodPost, "/session", "", map[string]string{"key": key}), c.mqtt(key, "", "plant/x"),
	}
	t.delete, _ = c.deletes("/api-keys/" + of(made, "api_key", "id"))
	t.gone = c.lists("/api-keys", of(made, "api_key", "id"))
	return t
}

// person makes a user with a session.
func (c contestant) person(round int) (id string, cookie *http.Cookie) {
	c.Helper()
	email := fmt.Sprintf("%s-%d@example.com", strings.ToLower(strings.ReplaceAll(c.Name(), "/", "-")), round)
	id = of(c.made("/users", map[string]any{"email": email, "role": "admin", "password": "correct horse battery"}), "user", "id")
	res := request(c.T, c.s, http.MethodPost, "/api/v1/session", "", fmt.Sprintf(`{"email":%q,"password":"correct horse battery"}`, email))
	if len(res.Cookies()) != 1 {
		c.Fatalf("signing in gives %s", res.Status)
	}
	return id, res.Cookies()[0]
}

func (c contestant) session(round int) contest {
	user, cookie := c.person(round)
	_, answer := c.admin(http.MethodGet, "/sessions?user="+user, nil)
	id := of(answer["items"].([]any)[0].(map[string]any), "id")
	t := contest{uses: []func() bool{
		c.request(http.MethodGet, "/me", "", nil, cookie), c.request(http.MethodPatch, "/me", "", map[string]string{"name": "x"}, cookie),
		c.request(http.MethodGet, "/devices/d", "", nil, cookie),
	}}
	t.delete, _ = c.deletes("/sessions/" + id)
	t.gone = c.lists("/sessions", id)
	return t
}

func (c contestant) user(round int) contest {
	id, cookie := c.person(round)
	own := of(func() map[string]any {
		_, made := c.http(http.MethodPost, "/api/v1/api-keys", "", map[string]any{"name": "own", "scopes": []string{"admin"}, "owner": "me"}, cookie)
		return made
	}(), "secret")
	t := contest{uses: []func() bool{
		c.request(http.MethodPatch, "/me", "", map[string]string{"name": "x"}, cookie), c.request(http.MethodGet, "/devices/d", own, nil),
		c.request(http.MethodPatch, "/users/"+id, servertest.AdminKey, map[string]string{"role": "admin"}), c.request(http.MethodPost, "/me/totp", "", nil, cookie),
		c.request(http.MethodPost, "/api-keys", "", map[string]any{"name": "more", "scopes": []string{"devices:read"}, "owner": "me"}, cookie),
	}}
	t.delete, t.gone = c.deletes("/users/" + id)
	return t
}

func (c contestant) device(round int) contest {
	id := fmt.Sprintf("dev-%d", round)
	token := of(c.made("/devices", map[string]any{"id": id}), "credential", "token")
	at := "/devices/" + id
	t := contest{uses: []func() bool{
		c.request(http.MethodPatch, at, servertest.AdminKey, map[string]string{"name": "x"}), c.request(http.MethodPut, at+"/desired", servertest.AdminKey, map[string]int{"n": 1}),
		c.request(http.MethodPost, at+"/commands", servertest.AdminKey, map[string]any{"method": "m"}),
		c.request(http.MethodPost, at+"/credentials", servertest.AdminKey, map[string]any{"kind": "token"}),
		c.request(http.MethodPost, "/telemetry?device="+id, servertest.AdminKey, map[string]int{"n": 1}), c.mqtt(token, "", "devices/me/telemetry"),
	}}
	t.delete, t.gone = c.deletes(at + "?data=keep")
	return t
}

func (c contestant) credential(round int) contest {
	id := fmt.Sprintf("with-%d", round)
	c.made("/devices", map[string]any{"id": id})
	made := c.made("/devices/"+id+"/credentials", map[string]any{"kind": "secret"})
	at := "/devices/" + id + "/credentials"
	t := contest{uses: []func() bool{c.mqtt(id, of(made, "credential", "password"), "devices/me/telemetry")}}
	t.delete, _ = c.deletes(at + "/" + of(made, "credential", "id"))
	t.gone = c.lists(at, of(made, "credential", "id"))
	return t
}

func (c contestant) serviceAccount(round int) contest {
	made := c.made("/service-accounts", map[string]any{"name": fmt.Sprintf("svc-%d", round), "publish": []string{"plant/#"}})
	at := "/service-accounts/" + of(made, "service_account", "id")
	t := contest{uses: []func() bool{
		c.mqtt(of(made, "secret"), "", "plant/x"), c.request(http.MethodPatch, at, servertest.AdminKey, map[string]any{"publish": []string{"plant/#", "x"}}),
	}}
	t.delete, t.gone = c.deletes(at)
	return t
}

func (c contestant) webhook(int) contest {
	made := c.made("/webhooks", map[string]any{"url": "https://127.0.0.1:1/x", "types": []string{"*"}})
	at := "/webhooks/" + of(made, "webhook", "id")
	t := contest{uses: []func() bool{
		c.request(http.MethodPatch, at, servertest.AdminKey, map[string]any{"description": "x"}), c.request(http.MethodPost, at+"/rotate", servertest.AdminKey, map[string]any{}),
		c.request(http.MethodPost, at+"/test", servertest.AdminKey, nil),
	}}
	t.delete, t.gone = c.deletes(at)
	return t
}

// importStep is how many devices an import makes in one transaction: that one is not broken off.
const importStep = 5000

// task is one that imports: to delete it is to cancel it, and that it works is that it gets on. The
// step under way when it is cancelled ends, however slow the machine is, and no other begins.
func (c contestant) task(round int) contest {
	var list strings.Builder
	list.WriteString("id,credential\n")
	for i := range 6 * importStep {
		fmt.Fprintf(&list, "task-%d-%05d,none\n", round, i)
	}
	w := web{c.T, "http://" + c.s.HTTPAddr()}
	res, text := w.do(http.MethodPost, "/api/v1/devices:import", "text/csv", list.String(), "respond-async")
	if res.StatusCode != http.StatusAccepted {
		c.Fatalf("the import gives %d %s", res.StatusCode, text)
	}
	at := strings.TrimPrefix(res.Header.Get("Location"), "/api/v1")
	var done, last atomic.Int64
	var cancelled atomic.Bool
	getsOn := func() bool {
		wait(c.T, 20*time.Millisecond) // or those who look leave nothing to those who work
		_, got := c.admin(http.MethodGet, at, nil)
		n, _ := got["done"].(float64)
		if state := of(got, "state"); state == "failed" || state == "timed_out" {
			c.Errorf("the task is %v", got)
		}
		before := done.Swap(int64(n))
		return int64(n) > before && !cancelled.Load()
	}
	state := func() string { _, got := c.admin(http.MethodGet, at, nil); return of(got, "state") }
	return contest{
		uses: []func() bool{getsOn, func() bool {
			wait(c.T, 20*time.Millisecond)
			c.admin(http.MethodGet, at+"/result", nil)
			return false
		}},
		delete: func() {
			_, got := c.admin(http.MethodDelete, at, nil)
			n, _ := got["done"].(float64)
			last.Store(int64(n))
			cancelled.Store(true)
		},
		gone: func() bool {
			until(c.T, "the end of the task", func() bool { s := state(); return s != "queued" && s != "running" })
			_, got := c.admin(http.MethodGet, at, nil)
			n, _ := got["done"].(float64)
			return of(got, "state") == "cancelled" && int64(n) <= last.Load()+importStep
		},
	}
}

// fight has everybody use the thing, deletes it, and looks who still could.
func (c contest) fight(t *testing.T) {
	var over atomic.Bool
	var answered atomic.Int64 // when the delete was, in ns since 1970
	var worked atomic.Int64
	var latest atomic.Int64 // of the uses that began after the answer and worked: how long after
	var wg sync.WaitGroup
	for range deleteUsers {
		for n, use := range c.uses {
			wg.Go(func() {
				for !over.Load() {
					began := time.Now()
					ok := use()
					at := answered.Load()
					switch lag := began.UnixNano() - at; {
					case !ok:
					case at == 0:
						worked.Add(1)
					case lag > int64(deleteLag):
						t.Errorf("use %d works %s after the delete was answered", n, time.Duration(lag))
						return
					case lag > latest.Load():
						latest.Store(lag)
					}
				}
			})
		}
	}
	stop := sync.OnceFunc(func() { over.Store(true); wg.Wait() })
	defer stop()
	wait(t, deleteAfter)
	until(t, "a use that works", func() bool { return worked.Load() > 0 })
	c.delete()
	answered.Store(time.Now().UnixNano())
	wait(t, deleteUntil)
	stop()
	if !c.gone() {
		t.Error("it is there again")
	}
	t.Logf("%d uses worked before, the last that did began %s after the answer", worked.Load(), time.Duration(latest.Load()))
}

// wait lets time pass while others work.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// TestWhatIsDeletedWhileItIsUsedEndsForGood has things used and changed by many while they are
// deleted: no answer is a fault of the server's, none works a second after the delete was
// answered, and nothing comes back.
func TestWhatIsDeletedWhileItIsUsedEndsForGood(t *testing.T) {
	s := servertest.Start(t, func(c *server.Config) { c.Web.Limits = api.Limits{Rate: 1e5, Burst: 1e5, SignIn: 1e5} })
	create(t, s, "d")
	contestant{t, s}.person(999) // an admin who stays
	for name, thing := range map[string]func(c contestant, round int) contest{
		"key": contestant.key, "session": contestant.session, "user": contestant.user, "device": contestant.device, "credential": contestant.credential,
		"service account": contestant.serviceAccount, "webhook": contestant.webhook, "task": contestant.task,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for round := range deleteRounds {
				thing(contestant{t, s}, round).fight(t)
			}
		})
	}
}
