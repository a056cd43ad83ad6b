package broker

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"

	"muster"
)

func pahoThree(t *testing.T, url, id, user string) mqtt3.Client {
	t.Helper()
	c := mqtt3.NewClient(mqtt3.NewClientOptions().AddBroker(url).SetClientID(id).SetUsername(user).SetPassword("x").
		SetAutoReconnect(false).SetConnectTimeout(patience))
	done(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(100) })
	return c
}

func done(t *testing.T, tok mqtt3.Token) {
	t.Helper()
	if !tok.WaitTimeout(patience) {
		t.Fatal("no answer")
	}
	if err := tok.Error(); err != nil {
		t.Fatal(err)
	}
}

func TestPahoForMQTT3(t *testing.T) {
	for _, transport := range []string{"tcp", "ws"} {
		t.Run(transport, func(t *testing.T) {
			r := start(t, nil)
			url := "tcp://" + r.Addr().String()
			if transport == "ws" {
				srv := httptest.NewServer(http.HandlerFunc(r.ServeWebSocket))
				t.Cleanup(srv.Close)
				url = "ws" + strings.TrimPrefix(srv.URL, "http") + "/mqtt"
			}
			device := pahoThree(t, url, "device", "token-a")
			if up := get(t, r.watch.events, "presence event"); up.Conn.Transport != transport {
				t.Errorf("transport %q, want %q", up.Conn.Transport, transport)
			}
			got := make(chan mqtt3.Message, 1)
			done(t, device.Subscribe("devices/me/commands/+", 1, func(_ mqtt3.Client, m mqtt3.Message) { got <- m }))
			admin := pahoThree(t, url, "admin", "admin")
			done(t, admin.Publish("devices/a/commands/c1", 1, false, "reboot"))
			if m := get(t, got, "command"); m.Topic() != "devices/me/commands/c1" || string(m.Payload()) != "reboot" {
				t.Errorf("got %q %q", m.Topic(), m.Payload())
			}
			for qos := range byte(3) {
				done(t, device.Publish("devices/me/telemetry/t", qos, false, "21.5"))
				if m := get(t, r.sink.messages, "message"); m.QoS != qos || m.Topic != "devices/a/telemetry/t" {
					t.Errorf("sink got %+v", m)
				}
			}
			big := bytes.Repeat([]byte("x"), 200_000) // many reads, many frames
			done(t, device.Publish("devices/me/telemetry", 1, false, big))
			if m := get(t, r.sink.messages, "message"); !bytes.Equal(m.Payload, big) {
				t.Errorf("payload of %d bytes", len(m.Payload))
			}
			done(t, device.Unsubscribe("devices/me/commands/+"))
		})
	}
}

func TestPahoForMQTT3IsToldWhyItIsRefused(t *testing.T) {
	r := start(t, nil)
	c := mqtt3.NewClient(mqtt3.NewClientOptions().AddBroker("tcp://" + r.Addr().String()).SetClientID("c").SetUsername("x").SetPassword("y"))
	tok := c.Connect()
	if !tok.WaitTimeout(patience) || tok.Error() == nil || !strings.Contains(tok.Error().Error(), "bad user name or password") {
		t.Errorf("got %v", tok.Error())
	}
}

func TestPahoForMQTT5(t *testing.T) {
	r := start(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	nc, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *paho.Publish, 10)
	bye := make(chan *paho.Disconnect, 1)
	c := paho.NewClient(paho.ClientConfig{
		Conn: nc, OnServerDisconnect: func(d *paho.Disconnect) { bye <- d },
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			got <- p.Packet
			return true, nil
		}},
	})
	ack, err := c.Connect(ctx, &paho.Connect{ClientID: "c", KeepAlive: 30, CleanStart: true, Username: "token-a", UsernameFlag: true})
	if err != nil || ack.ReasonCode != 0 {
		t.Fatalf("connect: %v", err)
	}
	sub, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{
		{Topic: "devices/me/desired", QoS: 2}, {Topic: "devices/b/desired"},
	}})
	if err == nil || !bytes.Equal(sub.Reasons, []byte{2, 0x87}) {
		t.Errorf("subscribe: %v %v", sub, err)
	}
	for qos := byte(1); qos <= 2; qos++ {
		if _, err := c.Publish(ctx, &paho.Publish{Topic: "devices/me/telemetry", QoS: qos, Payload: []byte("1")}); err != nil {
			t.Errorf("QoS %d: %v", qos, err)
		}
		r.sink.answers(func(Message) (error, bool) { return muster.Errorf(muster.Invalid, "not a number"), true })
		res, err := c.Publish(ctx, &paho.Publish{Topic: "devices/me/telemetry", QoS: qos, Payload: []byte("x")})
		if res == nil || res.ReasonCode != 0x99 { // paho calls a refusal at QoS 2 no error
			t.Errorf("QoS %d refused: %+v %v", qos, res, err)
		}
		r.sink.answers(nil)
		if err := r.Publish(t.Context(), "devices/a/desired", []byte("d"), false, qos); err != nil {
			t.Fatal(err)
		}
		if p := get(t, got, "message"); p.Topic != "devices/me/desired" || p.QoS != qos {
			t.Errorf("got %q QoS %d", p.Topic, p.QoS)
		}
	}
	r.Kick("a", "gone")
	if d := get(t, bye, "DISCONNECT"); d.ReasonCode != 0x98 || d.Properties.ReasonString != "gone" {
		t.Errorf("DISCONNECT %#x", d.ReasonCode)
	}
	get(t, c.Done(), "end of the client")
}

func TestWebSocketFramesAreAStream(t *testing.T) {
	r := start(t, nil)
	srv := httptest.NewServer(http.HandlerFunc(r.ServeWebSocket))
	defer srv.Close()
	d := websocket.Dialer{Subprotocols: []string{"mqtt"}}
	c, res, err := d.Dial("ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := res.Header.Get("Sec-WebSocket-Protocol"); got != "mqtt" {
		t.Errorf("subprotocol %q", got)
	}
	all := append(encode(t, 4, connectPacket(4, "c", "token-a", "")), encode(t, 4, publishPacket("devices/me/telemetry", "x", 1, 1))...)
	for _, part := range [][]byte{all[:1], all[1:7], {}, all[7:]} {
		if err := c.WriteMessage(websocket.BinaryMessage, part); err != nil {
			t.Fatal(err)
		}
	}
	if m := get(t, r.sink.messages, "message"); string(m.Payload) != "x" {
		t.Errorf("payload %q", m.Payload)
	}
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	for {
		if _, _, err = c.ReadMessage(); err != nil {
			break
		}
	}
	if !websocket.IsCloseError(err, websocket.CloseUnsupportedData) {
		t.Errorf("a text message is answered with %v, want close code 1003", err)
	}
}
