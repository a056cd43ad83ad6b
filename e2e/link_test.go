package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// link is one connection of a device of either library. It returns errors, so that
// many of them may be used at once; each is for one goroutine.
type link interface {
	// publish publishes at QoS 1 and waits for the PUBACK.
	publish(topic, payload string) error
	// ask subscribes to hear, publishes payload at topic with QoS 1 and returns what is
	// heard.
	ask(hear, topic, payload string) (string, error)
	// cut is closed when the connection has ended.
	cut() <-chan struct{}
	leave()
}

// login is how a client presents itself.
type login struct{ clientID, user, password string }

// opener is a library's way to connect.
type opener func(m *muster, l login) (link, error)

var errNoAnswer = fmt.Errorf("no answer within %s", clientLimit)

// openers are the libraries that devices of a line have, in turn.
func openers() []opener { return []opener{openLink3, openLink5} }

type link3 struct {
	c     paho3.Client
	ended chan struct{}
	end   sync.Once
}

func openLink3(m *muster, l login) (link, error) {
	k := &link3{ended: make(chan struct{})}
	k.c = paho3.NewClient(paho3.NewClientOptions().AddBroker("tcp://" + m.mqtt).SetClientID(l.clientID).SetUsername(l.user).SetPassword(l.password).
		SetProtocolVersion(4).SetAutoReconnect(false).SetConnectTimeout(clientLimit).
		SetConnectionLostHandler(func(paho3.Client, error) { k.end.Do(func() { close(k.ended) }) }))
	if err := answered3(k.c.Connect()); err != nil {
		return nil, err
	}
	return k, nil
}

// answered3 waits for a token and returns its error.
func answered3(t paho3.Token) error {
	if !t.WaitTimeout(clientLimit) {
		return errNoAnswer
	}
	return t.Error()
}

func (k *link3) publish(topic, payload string) error {
	t := k.c.Publish(topic, 1, false, payload)
	select {
	case <-t.Done():
		return t.Error()
	case <-k.ended: // paho keeps what is not acked for a session that may come
		return errors.New("the connection ended before the PUBACK")
	case <-time.After(clientLimit):
		return errNoAnswer
	}
}

func (k *link3) ask(hear, topic, payload string) (string, error) {
	heard := make(chan string, 1)
	err := answered3(k.c.Subscribe(hear, 1, func(_ paho3.Client, m paho3.Message) { heard <- string(m.Payload()) }))
	if err != nil {
		return "", fmt.Errorf("subscribe to %s: %w", hear, err)
	}
	return heardAfter(heard, k.publish(topic, payload))
}

func (k *link3) cut() <-chan struct{} { return k.ended }

func (k *link3) leave() { k.c.Disconnect(50) }

type link5 struct {
	c     *paho5.Client
	heard chan string
}

func openLink5(m *muster, l login) (link, error) {
	conn, err := net.DialTimeout("tcp", m.mqtt, clientLimit)
	if err != nil {
		return nil, err
	}
	k := &link5{heard: make(chan string, 1)}
	k.c = paho5.NewClient(paho5.ClientConfig{
		Conn: conn,
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
			k.heard <- string(p.Packet.Payload)
			return true, nil
		}},
	})
	ctx, cancel := context.WithTimeout(context.Background(), clientLimit)
	defer cancel()
	_, err = k.c.Connect(ctx, &paho5.Connect{
		ClientID: l.clientID, CleanStart: true, KeepAlive: 30,
		Username: l.user, UsernameFlag: true, Password: []byte(l.password), PasswordFlag: l.password != "",
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return k, nil
}

func (k *link5) publish(topic, payload string) error {
	ctx, cancel := context.WithTimeout(context.Background(), clientLimit)
	defer cancel()
	_, err := k.c.Publish(ctx, &paho5.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)})
	return err
}

func (k *link5) ask(hear, topic, payload string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientLimit)
	defer cancel()
	if _, err := k.c.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: hear, QoS: 1}}}); err != nil {
		return "", fmt.Errorf("subscribe to %s: %w", hear, err)
	}
	return heardAfter(k.heard, k.publish(topic, payload))
}

func (k *link5) cut() <-chan struct{} { return k.c.Done() }

func (k *link5) leave() {
	_ = k.c.Disconnect(&paho5.Disconnect{}) // the server may have ended it
	<-k.c.Done()
}

func heardAfter(heard <-chan string, err error) (string, error) {
	if err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	select {
	case p := <-heard:
		return p, nil
	case <-time.After(clientLimit):
		return "", errNoAnswer
	}
}

// inParallel does fn for 0 to n-1, eight at a time, and fails the test with the first
// five errors.
func inParallel(t *testing.T, n int, fn func(i int) error) {
	t.Helper()
	errs := make([]error, n)
	turns := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i := range n {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			errs[i] = fn(i)
		})
	}
	wg.Wait()
	bad := 0
	for i, err := range errs {
		if err == nil {
			continue
		}
		if bad++; bad <= 5 {
			t.Errorf("%d: %v", i, err)
		}
	}
	if bad > 0 {
		t.Fatalf("%d of %d failed", bad, n)
	}
}

// getJSON asks the API from any goroutine.
func (m *muster) getJSON(path string, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	status, body, err := get(ctx, "http://"+m.http+path, m.key)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("GET %s answers %d: %s", path, status, body)
	}
	return json.Unmarshal(body, out)
}

// failedLogin is a login that was refused, as the API shows it.
type failedLogin struct {
	Reason, Username, Subject, Peer, Listener string
	ClientID                                  string `json:"client_id"`
	Count                                     int
}

// logins returns what failed in a device's name, newest first; of those that named no
// device for an empty id.
func (m *muster) logins(id string) []failedLogin {
	m.t.Helper()
	path := "/api/v1/logins"
	if id != "" {
		path = "/api/v1/devices/" + url.PathEscape(id) + "/logins"
	}
	var page struct{ Items []failedLogin }
	m.ask(http.MethodGet, path, nil, http.StatusOK, &page)
	return page.Items
}

// latest returns the latest number of a device's key.
func (m *muster) latest(id, key string) (float64, error) {
	var l struct {
		Values map[string]struct{ Value float64 }
	}
	if err := m.getJSON("/api/v1/devices/"+url.PathEscape(id)+"/telemetry/latest", &l); err != nil {
		return 0, err
	}
	v, ok := l.Values[key]
	if !ok {
		return 0, fmt.Errorf("%s has no %s", id, key)
	}
	return v.Value, nil
}
