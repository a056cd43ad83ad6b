package server_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"muster/broker/listen"
	"muster/server"
	"muster/server/servertest"
)

const patience = 10 * time.Second

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// issue makes a certificate for an hour, signed by up, by itself when that has none.
func issue(t testing.TB, up pair, name string, isCA bool) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: isCA, BasicConstraintsValid: isCA, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := up.cert, up.key
	if signer == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return pair{cert, key}
}

func (p pair) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
}

// startTLS starts a server that asks for client certificates, as serve does.
func startTLS(t *testing.T) *server.Server {
	t.Helper()
	own, dir := issue(t, pair{}, "localhost", false), t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(own.key)
	check(t, err)
	files := listen.Pair{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	check(t, os.WriteFile(files.Cert, []byte(own.pem()), 0o600))
	check(t, os.WriteFile(files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return servertest.Start(t, func(c *server.Config) {
		c.MQTT = server.MQTTConfig{TLSAddr: "127.0.0.1:0", Certs: []listen.Pair{files}, ClientAuth: listen.ClientRequest}
	})
}

// opened is what a client presents.
type opened struct {
	id, user, password string
	cert               *tls.Config // over TLS
}

// try connects and returns the client, or the error of CONNECT.
func try(t *testing.T, s *server.Server, o opened) (client, error) {
	t.Helper()
	c := client{lost: make(chan time.Time, 1)}
	opts := mqtt.NewClientOptions().SetClientID(o.id).SetUsername(o.user).SetPassword(o.password).SetAutoReconnect(false).
		SetConnectTimeout(patience).SetConnectionLostHandler(func(mqtt.Client, error) { c.lost <- time.Now() })
	if o.cert != nil {
		opts.AddBroker("ssl://" + s.MQTTSAddr()).SetTLSConfig(o.cert)
	} else {
		opts.AddBroker("tcp://" + s.MQTTAddr())
	}
	c.Client = mqtt.NewClient(opts)
	tok := c.Connect()
	if !tok.WaitTimeout(patience) {
		t.Fatal("CONNECT has no answer")
	}
	if tok.Error() == nil {
		t.Cleanup(func() { c.Disconnect(100) })
	}
	return c, tok.Error()
}

func in(t *testing.T, s *server.Server, o opened) client {
	t.Helper()
	c, err := try(t, s, o)
	if err != nil {
		t.Fatalf("%s is refused: %v", o.id, err)
	}
	return c
}

// wants checks that the client is refused and the reason is to be read at path.
func refused(t *testing.T, s *server.Server, o opened, path, reason string) {
	t.Helper()
	_, err := try(t, s, o)
	if err == nil {
		t.Fatalf("%s is let in", o.id)
	}
	if strings.Contains(err.Error(), reason) {
		t.Errorf("the client is told why: %v", err)
	}
	var list struct {
		Items []struct{ Reason, Peer string }
	}
	call(t, s, http.MethodGet, path, nil, &list)
	if len(list.Items) == 0 || !strings.Contains(list.Items[0].Reason, reason) || list.Items[0].Peer == "" {
		t.Errorf("%s shows %+v, want %q", path, list.Items, reason)
	}
}

// presents is a client over TLS that shows p and resumes its sessions.
func presents(p pair) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(4),
		Certificates: []tls.Certificate{{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}},
	}
}

func TestACertificateLetsADeviceInUntilItsAuthorityOrPinIsRevoked(t *testing.T) {
	s := startTLS(t)
	ca := issue(t, pair{}, "Plant", true)
	var authority struct{ ID string }
	call(t, s, http.MethodPost, "/api/v1/certificate-authorities", map[string]any{"name": "Plant", "certificate": ca.pem(), "jit": true, "proof": "none"}, &authority)
	made := opened{id: "anything", cert: presents(issue(t, ca, "pump-1", false))}
	byCA := in(t, s, made)
	create(t, s, "pump-2")
	self := issue(t, pair{}, "whatever", false)
	var pin struct{ Credential struct{ ID string } }
	call(t, s, http.MethodPost, "/api/v1/devices/pump-2/credentials", map[string]string{"certificate": self.pem()}, &pin)
	alone := opened{id: "other", cert: presents(self)}
	pinned := in(t, s, alone)
	for name, c := range map[string]client{"pump-1": byCA, "pump-2": pinned} {
		if tok := c.Publish("devices/me/telemetry", 1, false, `{"a":1}`); !tok.WaitTimeout(patience) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		var latest struct {
			Values map[string]struct{ Value float64 }
		}
		call(t, s, http.MethodGet, "/api/v1/devices/"+name+"/telemetry/latest", nil, &latest)
		if latest.Values["a"].Value != 1 {
			t.Errorf("%s has %+v", name, latest)
		}
	}
	since := time.Now()
	call(t, s, http.MethodDelete, "/api/v1/certificate-authorities/"+authority.ID, nil, nil)
	byCA.wantCut(t, since)
	refused(t, s, made, "/api/v1/devices/pump-1/logins", "no certificate authority is registered")
	pinned.wantLive(t)
	since = time.Now()
	call(t, s, http.MethodDelete, "/api/v1/devices/pump-2/credentials/"+pin.Credential.ID, nil, nil)
	pinned.wantCut(t, since)
	refused(t, s, alone, "/api/v1/logins", "no certificate authority is registered")
	refused(t, s, opened{id: "pump-2", cert: alone.cert, user: "pump-2", password: "wrong"}, "/api/v1/devices/pump-2/logins", "; and the device has no secret")
}

func TestARotationLeavesNoGapAndEndsTheOldCredentialWithinASecond(t *testing.T) {
	s := servertest.Start(t)
	create(t, s, "d")
	type issued struct {
		Credential struct {
			ID, Username, Password string
		}
	}
	var old, fresh issued
	const path = "/api/v1/devices/d/credentials"
	call(t, s, http.MethodPost, path, map[string]string{"kind": "secret"}, &old)
	before := in(t, s, opened{"before", "d", old.Credential.Password, nil})
	call(t, s, http.MethodPost, path+"/"+old.Credential.ID+"/rotate", map[string]int{"overlap_s": 1}, &fresh)
	ends := time.Now().Add(time.Second)
	during := in(t, s, opened{"during", "d", old.Credential.Password, nil})
	after := in(t, s, opened{"after", "d", fresh.Credential.Password, nil})
	before.wantLive(t)
	before.wantCut(t, ends)
	during.wantCut(t, ends)
	after.wantLive(t)
	refused(t, s, opened{"late", "d", old.Credential.Password, nil}, "/api/v1/devices/d/logins", "expired at")
}

func TestEveryFailedLoginIsShownOnTheDeviceItNamed(t *testing.T) {
	s := servertest.Start(t)
	create(t, s, "d")
	const on = "/api/v1/devices/d/logins"
	refused(t, s, opened{"c", "d", "wrong", nil}, on, "the device has no secret")
	refused(t, s, opened{"d", "nobody", "wrong", nil}, on, "the user name is neither a device nor a token")
	refused(t, s, opened{"d", "", "", nil}, on, "the client presented no credential")
	refused(t, s, opened{"c", "mdt_A-TOKEN-THAT-NOBODY-HAS", "", nil}, "/api/v1/logins", "neither a device nor a token")
	refused(t, s, opened{"c", "mak_nobodys", "", nil}, "/api/v1/logins", "the adoption key is unknown")
	refused(t, s, opened{"c", "provision", "", nil}, "/api/v1/logins", "register themselves with no profile")
}

func TestAnUnknownClientIsQuarantinedSampledAndAdopted(t *testing.T) {
	s := servertest.Start(t)
	create(t, s, "existing")
	var key struct{ Secret string }
	call(t, s, http.MethodPost, "/api/v1/adoption-keys", map[string]string{"name": "bench"}, &key)
	plug := opened{"plug/1", "esp", key.Secret, nil}
	c := in(t, s, plug)
	heard := make(chan mqtt.Message, 8)
	if tok := c.Subscribe("#", 1, func(_ mqtt.Client, m mqtt.Message) { heard <- m }); !tok.WaitTimeout(patience) {
		t.Fatal("SUBSCRIBE has no answer")
	}
	admin := in(t, s, opened{"admin", servertest.AdminKey, "", nil})
	tap := make(chan mqtt.Message, 8)
	if tok := admin.Subscribe("#", 1, func(_ mqtt.Client, m mqtt.Message) { tap <- m }); !tok.WaitTimeout(patience) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	for _, topic := range []string{"tele/plug/SENSOR", "devices/existing/telemetry", "devices/existing/commands/1"} {
		if tok := c.Publish(topic, 1, false, `{"temp":21.5}`); !tok.WaitTimeout(patience) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	var candidate struct {
		Samples []struct {
			Topic   string
			Decoded []struct{ Values map[string]float64 }
		}
	}
	call(t, s, http.MethodGet, "/api/v1/inbox/plug-1", nil, &candidate)
	if len(candidate.Samples) != 3 || candidate.Samples[2].Topic != "tele/plug/SENSOR" || candidate.Samples[2].Decoded[0].Values["temp"] != 21.5 {
		t.Fatalf("the inbox shows %+v", candidate)
	}
	refused(t, s, opened{"existing", "esp", key.Secret, nil}, "/api/v1/devices/existing/logins", "in the name of a device that exists")

	since := time.Now()
	var adopted struct{ Credential struct{ Token string } }
	call(t, s, http.MethodPost, "/api/v1/inbox/plug-1/adopt", map[string]string{"id": "plug"}, &adopted)
	c.wantCut(t, since)
	for _, o := range []opened{plug, {"new", adopted.Credential.Token, "", nil}} {
		again := in(t, s, o)
		if tok := again.Publish("devices/plug/telemetry", 1, false, `{"temp":22}`); !tok.WaitTimeout(patience) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	var ledger struct{ Ledger struct{ Received int } }
	call(t, s, http.MethodGet, "/api/v1/devices/plug", nil, &ledger)
	if ledger.Ledger.Received != 2 {
		t.Errorf("of 2 messages %d are the device's", ledger.Ledger.Received)
	}
	call(t, s, http.MethodGet, "/api/v1/devices/existing", nil, &ledger)
	if ledger.Ledger.Received != 0 {
		t.Error("a candidate published in a device's name")
	}
	for {
		select {
		case m := <-tap:
			if strings.HasPrefix(m.Topic(), "tele/") || strings.Contains(m.Topic(), "existing/telemetry") || strings.Contains(m.Topic(), "existing/commands") {
				t.Errorf("a candidate's message reaches others: %s", m.Topic())
			}
			continue
		case m := <-heard:
			t.Errorf("a candidate hears %s", m.Topic())
			continue
		default:
		}
		break
	}

	other := in(t, s, opened{"second", "esp", key.Secret, nil})
	since = time.Now()
	call(t, s, http.MethodDelete, "/api/v1/inbox/second", nil, nil)
	other.wantCut(t, since)
	refused(t, s, opened{"second", "esp", key.Secret, nil}, "/api/v1/logins", "was refused in the adoption inbox")
}

// ask sends one registration and returns the answer.
func ask(t *testing.T, s *server.Server, id, slash string, request any) map[string]any {
	t.Helper()
	c := in(t, s, opened{id, "provision", "", nil})
	defer c.Disconnect(0)
	answers := make(chan []byte, 1)
	tok := c.Subscribe(slash+"provision/response", 1, func(_ mqtt.Client, m mqtt.Message) { answers <- m.Payload() })
	if !tok.WaitTimeout(patience) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	text, err := json.Marshal(request)
	check(t, err)
	if tok := c.Publish(slash+"provision/request", 1, false, text); !tok.WaitTimeout(patience) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	var out map[string]any
	select {
	case a := <-answers:
		check(t, json.Unmarshal(a, &out))
	case <-time.After(patience):
		t.Fatal("the registration has no answer")
	}
	return out
}

func TestDevicesRegisterThemselvesOverMQTT(t *testing.T) {
	s := servertest.Start(t)
	call(t, s, http.MethodPut, "/api/v1/profiles/meter", map[string]any{}, nil)
	var p struct{ Key, Secret string }
	call(t, s, http.MethodPut, "/api/v1/profiles/meter/provisioning", map[string]string{"strategy": "create"}, &p)
	own := map[string]string{"profile_key": p.Key, "profile_secret": p.Secret, "id": "m1"}
	a := ask(t, s, "c1", "", own)
	if a["status"] != "ok" || a["id"] != "m1" {
		t.Fatalf("the answer is %v", a["status"])
	}
	in(t, s, opened{"m1", a["token"].(string), "", nil}).wantLive(t)
	if a := ask(t, s, "c1", "", own); a["status"] != "error" || a["code"] != "conflict" {
		t.Errorf("the second time: %v", a)
	}
	tb := func(name string, more map[string]string) map[string]string {
		out := map[string]string{"deviceName": name, "provisionDeviceKey": p.Key, "provisionDeviceSecret": p.Secret}
		maps.Copy(out, more)
		return out
	}
	a = ask(t, s, "c2", "/", tb("Meter A", nil))
	if a["status"] != "SUCCESS" || a["credentialsType"] != "ACCESS_TOKEN" {
		t.Fatalf("ThingsBoard's answer is %v", a["status"])
	}
	in(t, s, opened{"x", a["credentialsValue"].(string), "", nil}).wantLive(t)
	basic := map[string]string{"credentialsType": "MQTT_BASIC", "clientId": "m3", "username": "user", "password": "a-password-of-its-own"}
	if a = ask(t, s, "c3", "/", tb("m3", basic)); a["status"] != "SUCCESS" {
		t.Fatalf("ThingsBoard's answer is %v", a)
	}
	in(t, s, opened{"m3", "user", "a-password-of-its-own", nil}).wantLive(t)
	if a = ask(t, s, "c4", "/", tb("m3", nil)); a["status"] != "FAILURE" {
		t.Errorf("ThingsBoard's answer is %v", a)
	}
	if a = ask(t, s, "c5", "/", map[string]string{"deviceName": "m4", "provisionDeviceKey": p.Key, "provisionDeviceSecret": "wrong"}); a["status"] != "NOT_FOUND" {
		t.Errorf("ThingsBoard's answer is %v", a)
	}
}

func TestAFactoryLineOf500DevicesRegistersItself(t *testing.T) {
	s := servertest.Start(t)
	var p struct{ Key, Secret string }
	call(t, s, http.MethodPut, "/api/v1/profiles/default/provisioning", map[string]string{"strategy": "create"}, &p)
	const devices, atOnce = 500, 25
	begun := time.Now()
	next := make(chan int)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				id := fmt.Sprintf("unit-%03d", i)
				a := ask(t, s, "line-"+id, "", map[string]string{"profile_key": p.Key, "profile_secret": p.Secret, "id": id})
				if a["status"] != "ok" {
					t.Errorf("%s: %v", id, a)
					continue
				}
				c := in(t, s, opened{id, a["token"].(string), "", nil})
				c.Disconnect(0)
			}
		})
	}
	for i := range devices {
		next <- i
	}
	close(next)
	wg.Wait()
	t.Logf("%d devices registered and connected in %s", devices, time.Since(begun).Round(time.Millisecond))
	var list struct{ Items []struct{ ID string } }
	call(t, s, http.MethodGet, "/api/v1/devices?limit=1000", nil, &list)
	if len(list.Items) != devices {
		t.Errorf("%d devices", len(list.Items))
	}
}
