package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"muster/ingest"
	"muster/server"
	"muster/server/servertest"
	"muster/sim"
	"muster/store/postgres/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call sends a request as admin and decodes the answer into out.
func call(t *testing.T, s *server.Server, method, path string, body, out any) {
	t.Helper()
	status, answer := reply(t, s, method, path, body)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	read(t, answer, out)
}

// read takes an answer into out; nil for an answer that nobody wants.
func read(t *testing.T, answer []byte, out any) {
	t.Helper()
	if out == nil {
		return
	}
	if err := json.Unmarshal(answer, out); err != nil {
		t.Fatal(err)
	}
}

// reply asks the API as its first admin, whatever it answers.
func reply(t *testing.T, s *server.Server, method, path string, body any) (status int, answer []byte) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.HTTPAddr()+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// create makes a device and returns its token.
func create(t *testing.T, s *server.Server, id string) string {
	t.Helper()
	var made struct{ Credential struct{ Token string } }
	call(t, s, http.MethodPost, "/api/v1/devices", map[string]string{"id": id}, &made)
	return made.Credential.Token
}

func connect(t *testing.T, s *server.Server, token string) mqtt.Client {
	t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + s.MQTTAddr()).SetUsername(token).SetClientID(t.Name()))
	if tok := c.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("connect: %v", tok.Error())
	}
	t.Cleanup(func() { c.Disconnect(100) })
	return c
}

// ledger waits until the queue is empty and returns the account.
func ledger(t *testing.T, s *server.Server, received uint64) ingest.Ledger {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var sys struct {
			Sections struct{ Ingest ingest.Status }
		}
		call(t, s, http.MethodGet, "/api/v1/system", nil, &sys)
		l := sys.Sections.Ingest.Ledger
		if !l.Balanced() {
			t.Fatalf("the ledger does not balance: %+v", l)
		}
		if l.Queued == 0 && l.Received >= received {
			return l
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the queue did not empty: %+v", l)
		}
	}
}

// database makes a database of its own on the server a variable names, and connects to it.
func database(t *testing.T, variable string) (url string, conn *pgx.Conn) {
	t.Helper()
	url = pgtest.Empty(t, pgtest.Server(t, variable))
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(ctx) })
	return url, conn
}

func TestOneDeviceWith3000DatesHurtsNobody(t *testing.T) {
	for _, engine := range []string{"sqlite", "MUSTER_TEST_TIMESCALE", "MUSTER_TEST_POSTGRES"} {
		t.Run(strings.ToLower(strings.TrimPrefix(engine, "MUSTER_TEST_")), func(t *testing.T) {
			var url string
			if engine != "sqlite" {
				url, _ = database(t, engine)
			}
			s := servertest.Start(t, func(c *server.Config) { c.DatabaseURL = url })
			const others, each, dates = 200, 10, 3000
			c := connect(t, s, create(t, s, "dates"))
			cfg := sim.Config{Addr: s.MQTTAddr(), Devices: others, Rate: 0, QoS: 1, Limit: each}
			tokens := make([]string, others)
			for i := range tokens {
				tokens[i] = create(t, s, string(cfg.ID(i)))
			}
			cfg.Credentials = func(i int) (string, string) { return tokens[i], "" }
			done := make(chan error, 1)
			go func() { done <- sim.Run(t.Context(), cfg, nil) }()
			day := time.Date(2018, 1, 1, 0, 0, 0, 0, time.UTC)
			for lo := 0; lo < dates; lo += 100 {
				var batch []map[string]any
				for i := lo; i < lo+100; i++ {
					batch = append(batch, map[string]any{"ts": day.AddDate(0, 0, i).UnixMilli(), "values": map[string]int{"i": i}})
				}
				raw, err := json.Marshal(batch)
				if err != nil {
					t.Fatal(err)
				}
				if tok := c.Publish("devices/me/telemetry", 1, false, raw); !tok.WaitTimeout(30*time.Second) || tok.Error() != nil {
					t.Fatalf("publish: %v", tok.Error())
				}
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			l := ledger(t, s, dates+others*each)
			if l.Stored != dates+others*each {
				t.Errorf("ledger %+v", l)
			}
			checkRows(t, s, "dates", dates)
			for i := range others {
				checkRows(t, s, string(cfg.ID(i)), each)
			}
		})
	}
}

func checkRows(t *testing.T, s *server.Server, id string, want int) {
	t.Helper()
	var page struct{ Items []json.RawMessage }
	call(t, s, http.MethodGet, "/api/v1/devices/"+id+"/telemetry?from=2000-01-01T00:00:00Z&limit=5000", nil, &page)
	if len(page.Items) != want {
		t.Errorf("%s has %d rows, want %d", id, len(page.Items), want)
	}
}

func TestWhatTheDatabaseRefusesForGoodBecomesRejected(t *testing.T) {
	url, db := database(t, "MUSTER_TEST_TIMESCALE")
	s := servertest.Start(t, func(c *server.Config) { c.DatabaseURL = url })
	if _, err := db.Exec(t.Context(), "ALTER TABLE telemetry_default ADD CONSTRAINT no_666 CHECK (vals[1] IS DISTINCT FROM 666)"); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s, create(t, s, "d"))
	var toks []mqtt.Token
	for i := range 1000 {
		toks = append(toks, c.Publish("devices/me/telemetry/i", 1, false, fmt.Sprint(i)))
	}
	for _, tok := range toks {
		if !tok.WaitTimeout(30*time.Second) || tok.Error() != nil {
			t.Fatalf("publish: %v", tok.Error())
		}
	}
	if l := ledger(t, s, 1000); l.Stored != 999 || l.Rejected != 1 {
		t.Errorf("ledger %+v", l)
	}
	var list struct {
		Items []struct {
			Code string
			Text string `json:"payload_text"`
		}
	}
	call(t, s, http.MethodGet, "/api/v1/devices/d/rejected", nil, &list)
	if len(list.Items) != 1 || list.Items[0].Code != "store" || list.Items[0].Text != `{"i":666}` {
		t.Errorf("rejected: %+v", list.Items)
	}
}

func TestASecondStartContinuesWhereTheFirstLeftOff(t *testing.T) {
	dir := t.TempDir()
	same := func(c *server.Config) { c.DataDir = dir }
	var token string
	t.Run("first", func(t *testing.T) {
		s := servertest.Start(t, same)
		token = create(t, s, "d")
		c := connect(t, s, token)
		if tok := c.Publish("devices/me/telemetry", 1, false, `{"a":1}`); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	})
	t.Run("second", func(t *testing.T) {
		s := servertest.Start(t, same)
		connect(t, s, token)
		checkRows(t, s, "d", 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for { // the latest values are read back in the background
			var latest struct {
				Values map[string]struct{ Value float64 }
			}
			call(t, s, http.MethodGet, "/api/v1/devices/d/telemetry/latest", nil, &latest)
			if latest.Values["a"].Value == 1 {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("latest %+v", latest)
			}
		}
	})
}

func TestASecondServerOnTheSameDataIsRefused(t *testing.T) {
	dir := t.TempDir()
	servertest.Start(t, func(c *server.Config) { c.DataDir = dir })
	cfg := server.Config{DataDir: dir, HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", LogMaxBytes: 1 << 20, MaxPacket: 1 << 16, Now: time.Now}
	if _, err := server.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another muster is running") {
		t.Errorf("a second server: %v", err)
	}
}
