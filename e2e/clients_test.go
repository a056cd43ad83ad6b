package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

const clientLimit = 15 * time.Second

// TestRealClients speaks to the server with the MQTT clients that people use.
func TestRealClients(t *testing.T) {
	t.Parallel()
	m := serve(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T, m *muster)
	}{
		{"mosquitto_pub publishes with a token", mosquittoToken},
		{"mosquitto_pub publishes with id and secret", mosquittoSecret},
		{"mosquitto_pub without credentials is refused", mosquittoAnonymous},
		{"mosquitto_pub with a wrong token or secret is refused", mosquittoWrong},
		{"mosquitto_sub hears what is sent to devices/me", mosquittoMe},
		{"paho 3.1.1 publishes at QoS 0, 1 and 2", pahoQoS},
		{"paho 3.1.1 is told that it may not", paho3Refused},
		{"paho 5 gets the exact reason codes", paho5Codes},
		{"MQTT 3.1.1 and 5 work over WebSocket", overWebSocket},
		{"an API key may use every topic", adminTopics},
	} {
		t.Run(test.name, func(t *testing.T) {
			m.t = t
			test.run(t, m)
		})
	}
	m.t = t
}

// mosquitto runs mosquitto_pub or mosquitto_sub against the server.
func (m *muster) mosquitto(name string, args ...string) result {
	m.t.Helper()
	host, port, err := net.SplitHostPort(m.mqtt)
	if err != nil {
		m.t.Fatalf("address: %v", err)
	}
	return command(m.t, needs(m.t, name), append([]string{"-h", host, "-p", port}, args...)...)
}

func mosquittoToken(t *testing.T, m *muster) {
	c := m.device("mosq-token", "token")
	for _, version := range []string{"mqttv311", "mqttv5"} {
		if r := m.mosquitto("mosquitto_pub", "-V", version, "-u", c.Token, "-q", "1", "-t", "devices/mosq-token/telemetry", "-m", `{"temperature":21.5}`); r.code != 0 {
			t.Fatalf("mosquitto_pub %s: %s", version, r)
		}
	}
	for _, p := range m.awaitTelemetry("mosq-token", 2) {
		if fmt.Sprint(p.Values) != "map[temperature:21.5]" {
			t.Errorf("the API shows %v", p)
		}
	}
}

func mosquittoSecret(t *testing.T, m *muster) {
	c := m.device("mosq-secret", "secret")
	r := m.mosquitto("mosquitto_pub", "-u", c.Username, "-P", c.Password, "-q", "2", "-t", "devices/me/telemetry/room/humidity", "-m", "41")
	if r.code != 0 {
		t.Fatalf("mosquitto_pub: %s", r)
	}
	if got := m.awaitTelemetry("mosq-secret", 1); fmt.Sprint(got[0].Values) != "map[room.humidity:41]" {
		t.Errorf("the API shows %v", got)
	}
}

func mosquittoAnonymous(t *testing.T, m *muster) {
	r := m.mosquitto("mosquitto_pub", "-q", "1", "-t", "devices/x/telemetry", "-m", "1")
	if r.code == 0 || !strings.Contains(strings.ToLower(r.stderr), "not authorised") {
		t.Errorf("mosquitto_pub without credentials: %s", r)
	}
}

func mosquittoWrong(t *testing.T, m *muster) {
	c := m.device("mosq-wrong", "secret")
	for _, login := range [][]string{
		{"-u", "no-such-token-at-all-here"}, {"-u", c.Username, "-P", "not the secret at all"}, {"-u", c.Username},
	} {
		r := m.mosquitto("mosquitto_pub", append(login, "-q", "1", "-t", "devices/mosq-wrong/telemetry", "-m", "1")...)
		if r.code == 0 || !strings.Contains(strings.ToLower(r.stderr), "bad user name or password") {
			t.Errorf("mosquitto_pub with a wrong login: %s", r)
		}
	}
}

// mosquittoMe has mosquitto_sub wait at devices/me for what an operator sends and
// for the errors of its own messages.
func mosquittoMe(t *testing.T, m *muster) {
	c := m.device("mosq-me", "token")
	host, port, err := net.SplitHostPort(m.mqtt)
	if err != nil {
		t.Fatalf("address: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	sub := exec.CommandContext(ctx, needs(t, "mosquitto_sub"), "-h", host, "-p", port, "-u", c.Token, "-i", "mosq-me-sub", "-q", "1", "-C", "2", "-F", "%t %p",
		"-t", "devices/me/commands/+", "-t", "devices/me/errors")
	var heard bytes.Buffer
	sub.Stdout = &heard
	if err := sub.Start(); err != nil {
		t.Fatalf("start mosquitto_sub: %v", err)
	}
	m.awaitConnected("mosq-me")
	// Its SUBSCRIBE may still be on the way: send until it has heard.
	done := make(chan error, 1)
	go func() { done <- sub.Wait() }()
	operator := paho3Client(t, m, "tcp://"+m.mqtt, "operator-me", m.key, "")
	device := paho3Client(t, m, "tcp://"+m.mqtt, "mosq-me-pub", c.Token, "")
	for {
		must(t, operator.Publish("devices/mosq-me/commands/7", 1, false, `{"method":"blink"}`))
		must(t, device.Publish("devices/me/telemetry", 1, false, `{"broken"`))
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("mosquitto_sub: %v; it heard %s", err, heard.String())
			}
			command, problem := strings.Contains(heard.String(), "devices/me/commands/7 {\"method\":\"blink\"}\n"), strings.Contains(heard.String(), "devices/me/errors {")
			if !command || !problem || !strings.Contains(heard.String(), `"code":"malformed"`) {
				t.Errorf("mosquitto_sub heard\n%s", heard.String())
			}
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// awaitConnected waits until the API shows a device online.
func (m *muster) awaitConnected(id string) {
	m.t.Helper()
	m.await(id+" to be online", clientLimit, func() bool {
		var d struct{ Presence struct{ State string } }
		m.ask(http.MethodGet, "/api/v1/devices/"+url.PathEscape(id), nil, http.StatusOK, &d)
		return d.Presence.State == "online"
	})
}

// paho3Client connects by MQTT 3.1.1; the test's end disconnects it.
func paho3Client(t *testing.T, m *muster, broker, clientID, user, password string) paho3.Client {
	t.Helper()
	o := paho3.NewClientOptions().AddBroker(broker).SetClientID(clientID).SetUsername(user).SetPassword(password).
		SetProtocolVersion(4).SetAutoReconnect(false).SetConnectTimeout(clientLimit).SetOrderMatters(true)
	c := paho3.NewClient(o)
	must(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(100) })
	return c
}

func must(t *testing.T, token paho3.Token) {
	t.Helper()
	if !token.WaitTimeout(clientLimit) {
		t.Fatalf("no answer within %s", clientLimit)
	}
	if err := token.Error(); err != nil {
		t.Fatalf("refused: %v", err)
	}
}

func pahoQoS(t *testing.T, m *muster) {
	cred := m.device("paho3-qos", "token")
	c := paho3Client(t, m, "tcp://"+m.mqtt, "any-client-id", cred.Token, "")
	for qos := range byte(3) {
		must(t, c.Publish("devices/paho3-qos/telemetry", qos, false, fmt.Sprintf(`{"qos":%d}`, qos)))
	}
	var seen []string
	for _, p := range m.awaitTelemetry("paho3-qos", 3) {
		seen = append(seen, fmt.Sprint(p.Values["qos"]))
	}
	if got := strings.Join(seen, " "); got != "0 1 2" {
		t.Errorf("the API shows the values %s, want 0 1 2 in order", got)
	}
}

// paho3Refused publishes and subscribes where it may not: MQTT 3.1.1 has no way to
// say so in an ack, so that the message is acked and devices/{id}/errors says why.
func paho3Refused(t *testing.T, m *muster) {
	cred := m.device("paho3-no", "token")
	m.device("paho3-other", "token")
	c := paho3Client(t, m, "tcp://"+m.mqtt, "paho3-no", cred.Token, "")
	told := make(chan string, 10)
	must(t, c.Subscribe("devices/me/errors", 0, func(_ paho3.Client, msg paho3.Message) { told <- msg.Topic() + " " + string(msg.Payload()) }))
	must(t, c.Publish("devices/paho3-other/telemetry", 1, false, `{"a":1}`))
	select {
	case text := <-told:
		for _, want := range []string{"devices/me/errors ", `"code":"topic"`, `"topic":"devices/paho3-other/telemetry"`, `"status":403`} {
			if !strings.Contains(text, want) {
				t.Errorf("it is told %s, which has no %s", text, want)
			}
		}
	case <-time.After(clientLimit):
		t.Error("it is not told that its message was refused")
	}
	if got := m.awaitRejected("paho3-no", 1)[0]; got.Code != "topic" || got.Topic != "devices/paho3-other/telemetry" {
		t.Errorf("the API shows %+v", got)
	}
	if got := m.telemetry("paho3-other"); len(got) != 0 {
		t.Errorf("the other device has %v", got)
	}
	sub := c.Subscribe("devices/paho3-other/commands/+", 1, nil)
	if !sub.WaitTimeout(clientLimit) {
		t.Fatal("no SUBACK")
	}
	if code := sub.(*paho3.SubscribeToken).Result()["devices/paho3-other/commands/+"]; code != 0x80 {
		t.Errorf("another device's commands: SUBACK %#x, want 0x80", code)
	}
	must(t, c.Publish("devices/paho3-no/telemetry", 1, false, `{"a":1}`)) // it is still connected
}

// client5 is a paho 5 client and what it heard.
type client5 struct {
	*paho5.Client
	heard chan *paho5.Publish
	bye   chan byte // reason code of the server's DISCONNECT
}

func newClient5(conn net.Conn) *client5 {
	c := &client5{heard: make(chan *paho5.Publish, 100), bye: make(chan byte, 1)}
	c.Client = paho5.NewClient(paho5.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn),
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(r paho5.PublishReceived) (bool, error) {
			c.heard <- r.Packet
			return true, nil
		}},
		OnServerDisconnect: func(d *paho5.Disconnect) { c.bye <- d.ReasonCode },
	})
	return c
}

// connect5 connects by MQTT 5 over conn and returns the CONNACK's reason code.
func connect5(t *testing.T, conn net.Conn, clientID, user, password string) (*client5, byte) {
	t.Helper()
	c := newClient5(conn)
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	ack, err := c.Connect(ctx, &paho5.Connect{
		ClientID: clientID, CleanStart: true, KeepAlive: 30,
		Username: user, UsernameFlag: user != "", Password: []byte(password), PasswordFlag: password != "",
	})
	if ack == nil {
		t.Fatalf("connect: %v", err)
	}
	if err == nil {
		t.Cleanup(func() {
			_ = c.Disconnect(&paho5.Disconnect{}) // a test may have had it disconnected
			<-c.Done()
		})
	}
	return c, ack.ReasonCode
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, clientLimit)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// publish publishes at QoS 1 and returns the PUBACK's reason code and string.
func (c *client5) publish(t *testing.T, topic, payload string) (byte, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	r, err := c.Publish(ctx, &paho5.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)})
	if r == nil {
		t.Fatalf("publish at %s: %v", topic, err)
	}
	if r.Properties == nil {
		return r.ReasonCode, ""
	}
	return r.ReasonCode, r.Properties.ReasonString
}

func (c *client5) subscribe(t *testing.T, filter string) byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	ack, err := c.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: filter, QoS: 1}}})
	if ack == nil {
		t.Fatalf("subscribe to %s: %v", filter, err)
	}
	return ack.Reasons[0]
}

// next returns the next message heard.
func (c *client5) next(t *testing.T) *paho5.Publish {
	t.Helper()
	select {
	case p := <-c.heard:
		return p
	case <-time.After(clientLimit):
		t.Fatal("nothing is heard")
		return nil
	}
}

func paho5Codes(t *testing.T, m *muster) {
	token := m.device("paho5", "token")
	secret := m.device("paho5-secret", "secret")
	for _, login := range []struct {
		name, user, password string
		want                 byte
	}{
		{"anonymous", "", "", 0x87},
		{"a wrong token", "no-such-token-at-all-here", "", 0x86},
		{"a wrong secret", secret.Username, "not the secret at all", 0x86},
		{"id and secret", secret.Username, secret.Password, 0},
	} {
		if _, code := connect5(t, dial(t, m.mqtt), "", login.user, login.password); code != login.want {
			t.Errorf("%s: CONNACK %#x, want %#x", login.name, code, login.want)
		}
	}
	c, code := connect5(t, dial(t, m.mqtt), "paho5", token.Token, "")
	if code != 0 {
		t.Fatalf("CONNACK %#x", code)
	}
	if code := c.subscribe(t, "devices/paho5-secret/commands/+"); code != 0x87 {
		t.Errorf("another device's commands: SUBACK %#x, want 0x87", code)
	}
	if code := c.subscribe(t, "devices/me/errors"); code > 1 {
		t.Errorf("its own errors: SUBACK %#x", code)
	}
	for _, pub := range []struct {
		topic, payload string
		want           byte
	}{
		{"devices/paho5/telemetry", `{"a":1}`, 0},
		{"devices/me/telemetry", `{"a":2}`, 0},
		{"devices/paho5-secret/telemetry", `{"a":1}`, 0x87},
		{"devices/paho5/nowhere", `{"a":1}`, 0x87},
		{"somewhere/else", `{"a":1}`, 0x87},
		{"devices/paho5/telemetry", `{"a":`, 0x99},
	} {
		code, why := c.publish(t, pub.topic, pub.payload)
		if code != pub.want {
			t.Errorf("%s %s: PUBACK %#x (%s), want %#x", pub.topic, pub.payload, code, why, pub.want)
		}
		if code != 0 && why == "" {
			t.Errorf("%s %s: refused without a reason string", pub.topic, pub.payload)
		}
		if code == 0 {
			continue
		}
		if told := c.next(t); told.Topic != "devices/me/errors" || !strings.Contains(string(told.Payload), `"detail"`) {
			t.Errorf("%s %s: told %s %s", pub.topic, pub.payload, told.Topic, told.Payload)
		}
	}
	m.awaitTelemetry("paho5", 2)
	m.awaitRejected("paho5", 4)
}

func overWebSocket(t *testing.T, m *muster) {
	cred := m.device("websocket", "token")
	address := "ws://" + m.http + "/mqtt"
	c3 := paho3Client(t, m, address, "ws-3", cred.Token, "")
	must(t, c3.Publish("devices/me/telemetry", 1, false, `{"via":3}`))

	conn, err := paho3.NewWebsocket(address, nil, clientLimit, nil, nil)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	c5, code := connect5(t, conn, "ws-5", cred.Token, "")
	if code != 0 {
		t.Fatalf("CONNACK %#x", code)
	}
	if code, why := c5.publish(t, "devices/me/telemetry", `{"via":5}`); code != 0 {
		t.Errorf("PUBACK %#x (%s)", code, why)
	}
	got := m.awaitTelemetry("websocket", 2)
	if a, b := fmt.Sprint(got[0].Values), fmt.Sprint(got[1].Values); a != "map[via:3]" || b != "map[via:5]" {
		t.Errorf("the API shows %s and %s", a, b)
	}
	conn, err = paho3.NewWebsocket(address, nil, clientLimit, nil, nil)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	if _, code := connect5(t, conn, "ws-nobody", "", ""); code != 0x87 {
		t.Errorf("anonymous over WebSocket: CONNACK %#x, want 0x87", code)
	}
}

// adminTopics publishes for a device and listens to all of them.
func adminTopics(t *testing.T, m *muster) {
	m.device("by-admin", "token")
	c, code := connect5(t, dial(t, m.mqtt), "operator", m.key, "")
	if code != 0 {
		t.Fatalf("CONNACK %#x", code)
	}
	if code := c.subscribe(t, "devices/+/telemetry/#"); code > 2 {
		t.Fatalf("SUBACK %#x", code)
	}
	if code, why := c.publish(t, "devices/by-admin/telemetry", `{"a":1}`); code != 0 {
		t.Errorf("PUBACK %#x (%s)", code, why)
	}
	if p := c.next(t); p.Topic != "devices/by-admin/telemetry" || string(p.Payload) != `{"a":1}` {
		t.Errorf("heard %s %s", p.Topic, p.Payload)
	}
	m.awaitTelemetry("by-admin", 1)
}
