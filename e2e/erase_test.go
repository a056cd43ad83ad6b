package e2e

import (
	"context"
	"database/sql"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"muster/store/control/controltest"
)

const (
	eraseLimit = 2 * time.Minute
	eraseLoad  = 6000 // messages of a device that is deleted: more than is deleted at once
)

// ground is a database that can be looked into when the server has stopped.
type ground struct {
	args  []string
	rows  func(m *muster) *rows
	count func(m *muster, query string) int
}

func grounds() map[string]func(t *testing.T) ground {
	return map[string]func(t *testing.T) ground{
		"sqlite": func(t *testing.T) ground {
			return ground{nil, func(m *muster) *rows { return readSQLite(t, m.data) }, func(m *muster, query string) int {
				file := url.URL{Scheme: "file", Path: filepath.Join(m.data, "telemetry.db"), RawQuery: "mode=ro"}
				db, err := sql.Open("sqlite", file.String())
				if err != nil {
					t.Fatalf("open telemetry.db: %v", err)
				}
				defer db.Close()
				var n int
				if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
					t.Fatalf("%s: %v", query, err)
				}
				return n
			}}
		},
		"timescaledb": func(t *testing.T) ground {
			dsn := controltest.Database(t, timescale(t))
			return ground{[]string{"--database", dsn}, func(*muster) *rows { return readPostgres(t, dsn) }, func(_ *muster, query string) int {
				c := connect(t, dsn)
				defer func() { _ = c.Close(context.Background()) }()
				var n int
				if err := c.QueryRow(t.Context(), query).Scan(&n); err != nil {
					t.Fatalf("%s: %v", query, err)
				}
				return n
			}}
		},
	}
}

// TestErasedMeansGone deletes devices with their data, and others without, while they
// publish, and kills the server around it: nothing is left of the former, all of the
// latter and of their neighbours is there, and the ledger balances.
func TestErasedMeansGone(t *testing.T) {
	t.Parallel()
	for name, prepare := range grounds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eraseAndKill(t, prepare(t))
		})
	}
}

func eraseAndKill(t *testing.T, g ground) {
	dice := seeded(t)
	m := serveWatched(t, g.args...)
	rounds := inSoak(20, 3) // in each a device is deleted with its data, one without, and the server killed
	doomed, kept, near := m.devices("doomed", rounds), m.devices("kept", rounds), m.devices("near", 10)
	for _, ps := range [][]*publisher{doomed, kept, near} {
		for _, p := range ps {
			p.stamped = true
			p.spoil(t)
		}
	}
	auditor := m.audit(t)
	leaving, staying := launch(t.Context(), append(doomed[:rounds:rounds], kept...)), launch(t.Context(), near)
	defer staying.cancel()
	defer leaving.cancel()
	m.progress(leaving, int64(2*rounds*eraseLoad))
	for i := range rounds {
		m.progress(staying, 500)
		m.deleteAndKill(dice, kept[i].id, "keep", http.StatusOK)
		m.deleteAndKill(dice, doomed[i].id, "delete", http.StatusAccepted)
		for dice.IntN(2) == 0 { // while it is being erased, too
			pause(t.Context(), time.Duration(dice.IntN(300))*time.Millisecond)
			m.restart()
		}
	}
	leaving.cancel()
	leaving.wg.Wait()
	if err := staying.finish(); err != nil {
		t.Error(err)
	}
	m.drained(drainLimit)
	m.awaitErased()
	again := m.remade(doomed[0].id, kept[0].id)
	m.drained(drainLimit)
	auditor.verdict(t, rounds)
	m.stop()

	r := g.rows(m)
	for _, p := range doomed[1:] {
		if n := len(r.of[p.id]); n > 0 {
			t.Errorf("%d messages of %s are left", n, p.id)
		}
	}
	if n := len(r.of[doomed[0].id]); n != again {
		t.Errorf("the device that was made again has %d messages, want %d", n, again)
	}
	// What a device that is deleted sends last may be stored without its seeing an ack.
	r.check(t, append(kept, near...), true)
	wantCount := func(query string, want int) {
		t.Helper()
		if n := g.count(m, query); n != want {
			t.Errorf("%s gives %d, want %d", query, n, want)
		}
	}
	wantCount(`SELECT count(*) FROM telemetry_default`, r.total) // none without a device
	wantCount(`SELECT count(*) FROM erased_device`, 0)
	wantCount(`SELECT count(*) FROM rejected WHERE device LIKE 'doomed%'`, 0)
	wantCount(`SELECT count(*) FROM rejected WHERE device <> ''`, len(kept)+len(near)) // those of none came while a device was deleted
	wantCount(`SELECT count(*) FROM latest`, len(kept)+len(near)+1)
}

// deleteAndKill deletes a device and kills the server meanwhile, until it is gone.
func (m *muster) deleteAndKill(dice *rand.Rand, id, data string, want int) {
	m.t.Helper()
	path := "/api/v1/devices/" + id
	for try := 0; m.status(http.MethodGet, path) != http.StatusNotFound; try++ {
		if try == 5 {
			m.ask(http.MethodDelete, path+"?data="+data, nil, want, nil)
			return
		}
		answered := make(chan struct{})
		go func() { // it ends with the server
			defer close(answered)
			ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
			defer cancel()
			_, _, _ = request(ctx, http.MethodDelete, "http://"+m.http+path+"?data="+data, m.key, nil) // the server is killed
		}()
		pause(m.t.Context(), time.Duration(dice.IntN(40))*time.Millisecond)
		m.restart()
		<-answered
	}
}

func (m *muster) restart() {
	m.t.Helper()
	m.kill()
	m.start()
	m.ready()
}

// status asks the API and returns the status.
func (m *muster) status(method, path string) int {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	status, _, err := request(ctx, method, "http://"+m.http+path, m.key, nil)
	if err != nil {
		m.t.Fatalf("%s %s: %v", method, path, err)
	}
	return status
}

// awaitErased waits until no data of deleted devices is left to delete.
func (m *muster) awaitErased() {
	m.t.Helper()
	m.await("the data of deleted devices to be deleted", eraseLimit, func() bool {
		var sys struct {
			Sections struct {
				Erasures struct {
					Pending int
					Error   string `json:"last_error"`
				}
			}
		}
		m.ask(http.MethodGet, "/api/v1/system", nil, http.StatusOK, &sys)
		if sys.Sections.Erasures.Error != "" {
			m.t.Errorf("deleting data failed: %s", sys.Sections.Erasures.Error)
		}
		return sys.Sections.Erasures.Pending == 0
	})
}

// remade makes two deleted devices again: the one begins empty, the other goes on. It
// returns how many messages the first has then.
func (m *muster) remade(erased, kept string) int {
	m.t.Helper()
	p := &publisher{addr: m.mqtt, id: erased, token: m.device(erased, "token").Token, stamped: true}
	if got := m.telemetry(erased); len(got) > 0 {
		m.t.Errorf("a device that was made again after its data was deleted begins with %d readings", len(got))
	}
	m.device(kept, "token")
	if got := m.telemetry(kept); len(got) == 0 {
		m.t.Error("a device that was made again after its data was kept begins empty")
	}
	s := launch(m.t.Context(), []*publisher{p})
	defer s.cancel()
	m.progress(s, 10)
	if err := s.finish(); err != nil {
		m.t.Error(err)
	}
	return len(p.acked)
}

// spoil sends a message that is rejected.
func (p *publisher) spoil(t *testing.T) {
	t.Helper()
	dialer := net.Dialer{Timeout: 5 * time.Second}
	c, err := dialer.DialContext(t.Context(), "tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := p.handshake(c); err != nil {
		t.Fatal(err)
	}
	topic := "devices/" + p.id + "/telemetry"
	b := append([]byte{0x32}, binary.AppendUvarint(nil, uint64(2+len(topic)+2+1))...)
	b = append(binary.BigEndian.AppendUint16(appendString(b, topic), 1), '{')
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	ack := make([]byte, 4)
	if _, err := io.ReadFull(c, ack); err != nil || ack[0] != 0x40 {
		t.Fatalf("a bad message is answered with % x, %v", ack, err)
	}
}
