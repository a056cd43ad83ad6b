package control_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/postgres"
	"muster/store/postgres/pgtest"
	"muster/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine opens handles on one database, each time the same one: migrated and empty at first.
type engine struct {
	postgres bool
	dialect  control.Dialect
	open     func(t *testing.T) control.Handles
}

// servers are the variables that name PostgreSQL servers. The control data asks for nothing
// that only one of them has: most tests do with the plain one.
var servers = []string{"MUSTER_TEST_TIMESCALE", "MUSTER_TEST_POSTGRES"}

// onEach runs a test on SQLite and, where there is a server, on PostgreSQL, beside others: what they
// do is mostly to wait.
func onEach(t *testing.T, run func(t *testing.T, e engine)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		controltest.Fill(t, dir)
		run(t, onSQLite(dir))
	})
	const env = "MUSTER_TEST_POSTGRES"
	t.Run(env, func(t *testing.T) {
		t.Parallel()
		run(t, onPostgres(database(t, env)))
	})
}

// onEachEmpty runs a test on SQLite and on all servers, in databases that nobody migrated.
func onEachEmpty(t *testing.T, run func(t *testing.T, e engine)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		run(t, onSQLite(t.TempDir()))
	})
	for _, env := range servers {
		t.Run(env, func(t *testing.T) {
			t.Parallel()
			run(t, onPostgres(pgtest.Empty(t, pgtest.Server(t, env))))
		})
	}
}

func onSQLite(dir string) engine {
	return engine{false, control.SQLite(), func(t *testing.T) control.Handles {
		c, err := sqlite.OpenControl(t.Context(), dir)
		if err != nil {
			t.Fatalf("open control.db: %v", err)
		}
		return control.Handles{Write: c.Write, Read: c.Read, Query: c.Query}
	}}
}

func onPostgres(dsn string) engine {
	return engine{true, control.Postgres(), func(t *testing.T) control.Handles {
		h, err := postgres.OpenControl(t.Context(), dsn)
		if err != nil {
			t.Fatalf("open the database: %v", err)
		}
		return h
	}}
}

// database is a migrated database without data on the server in env.
func database(t testing.TB, env string) string {
	t.Helper()
	return controltest.Database(t, pgtest.Server(t, env))
}

func (e engine) control(t *testing.T) *control.Control {
	t.Helper()
	c, err := control.Open(t.Context(), e.open(t), e.dialect)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func wantKind(t *testing.T, err error, want muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != want {
		t.Errorf("the answer is %v of kind %v, want kind %v", err, muster.KindOf(err), want)
	}
}

func wantNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// held is all that the registry part of a store holds.
type held struct {
	Devices     []devices.Device
	Credentials []devices.Credential
	Presence    []devices.PresenceRow
}

func holds(t *testing.T, c *control.Control) held {
	t.Helper()
	var h held
	wantNil(t, c.LoadDevices(t.Context(), func(d devices.Device) error { h.Devices = append(h.Devices, d); return nil }))
	wantNil(t, c.LoadCredentials(t.Context(), func(cr devices.Credential) error { h.Credentials = append(h.Credentials, cr); return nil }))
	wantNil(t, c.LoadPresence(t.Context(), func(p devices.PresenceRow) error { h.Presence = append(h.Presence, p); return nil }))
	return h
}

func wantHeld(t *testing.T, c *control.Control, want held) {
	t.Helper()
	got := holds(t, c)
	if slices.Equal(want.Devices, got.Devices) && slices.Equal(want.Credentials, got.Credentials) && slices.Equal(want.Presence, got.Presence) {
		return // telling what differs among 10,000 takes seconds, even when nothing does
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the registry differs (-want +got):\n%s", diff)
	}
}

func device(id string) devices.Device {
	return devices.Device{ID: muster.DeviceID(id), Name: "Name of " + id + " é 温", Created: 1_767_225_600_000_001, Profile: "default"}
}

func credential(id, dev string) devices.Credential {
	return devices.Credential{ID: id, Device: muster.DeviceID(dev), Kind: devices.Token, Hash: sha256.Sum256([]byte(id)), Created: 42}
}

func presence(dev string, state muster.PresenceState) devices.PresenceRow {
	p := muster.Presence{State: state, Since: 7, LastSeen: math.MaxInt64, Reason: "keepalive"}
	return devices.PresenceRow{Device: muster.DeviceID(dev), Presence: p}
}

func TestDevices(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		a, b := device("a"), device("b")
		ca, cb := credential("cred_1", "a"), credential("cred_2", "b")
		t.Run("a new store is empty", func(t *testing.T) { wantHeld(t, c, held{}) })
		t.Run("devices and their credentials are inserted together", func(t *testing.T) {
			wantNil(t, c.InsertDevices(ctx, []devices.Device{b, a}, []devices.Credential{cb, ca}))
			wantHeld(t, c, held{Devices: []devices.Device{a, b}, Credentials: []devices.Credential{ca, cb}})
		})
		t.Run("inserting nothing is no error", func(t *testing.T) { wantNil(t, c.InsertDevices(ctx, nil, nil)) })
		want := held{Devices: []devices.Device{a, b}, Credentials: []devices.Credential{ca, cb}}
		refusedDevices(t, c, want)
		t.Run("a credential is added, in all its parts", func(t *testing.T) {
			extra := devices.Credential{
				ID: "cred_3", Device: "a", Kind: devices.X509, Hash: sha256.Sum256([]byte("k")), Created: 1, Expires: 1 << 60, Label: `CN="é"`,
				LastUsed: 3, CA: "ca_1", Revoked: 4,
			}
			wantNil(t, c.ReplaceCredentials(ctx, []devices.Credential{extra}, nil))
			want.Credentials = append(want.Credentials, extra)
			wantHeld(t, c, want)
		})
		t.Run("credentials are replaced and others deleted together", func(t *testing.T) {
			want.Credentials[0].Expires, want.Credentials[0].Label = 77, "old"
			fresh := credential("cred_4", "a")
			wantNil(t, c.ReplaceCredentials(ctx, []devices.Credential{want.Credentials[0], fresh}, []string{"cred_3", "cred_nobody"}))
			want.Credentials[2] = fresh
			wantHeld(t, c, want)
		})
		t.Run("a credential of no device is not found, and nothing of it is done", func(t *testing.T) {
			wantKind(t, c.ReplaceCredentials(ctx, []devices.Credential{credential("cred_9", "a"), credential("cred_8", "nobody")}, []string{"cred_4"}), muster.NotFound)
			wantHeld(t, c, want)
		})
		t.Run("a credential is deleted", func(t *testing.T) {
			wantNil(t, c.ReplaceCredentials(ctx, nil, []string{"cred_4"}))
			want.Credentials = want.Credentials[:2]
			wantHeld(t, c, want)
		})
		t.Run("the use of credentials is saved, of those whose device and CA are there", func(t *testing.T) {
			want.Credentials[1].LastUsed = 99
			stray, foreign := credential("cred_7", "nobody"), credential("cred_6", "a")
			foreign.CA = "ca_nobody"
			wantNil(t, c.SaveCredentials(ctx, []devices.Credential{stray, want.Credentials[1], foreign}))
			wantNil(t, c.SaveCredentials(ctx, nil))
			wantHeld(t, c, want)
			want.Credentials[1].LastUsed = 0
			wantNil(t, c.SaveCredentials(ctx, want.Credentials))
			want.Credentials[0].Expires, want.Credentials[0].Label = 0, ""
			wantNil(t, c.ReplaceCredentials(ctx, want.Credentials, nil))
		})
		t.Run("deleting a device takes its credentials and presence along, and nobody else's", func(t *testing.T) {
			wantNil(t, c.SavePresence(ctx, []devices.PresenceRow{presence("a", muster.PresenceOnline), presence("b", muster.PresenceOffline)}))
			wantNil(t, c.DeleteDevices(ctx, []muster.DeviceID{"a"}))
			wantHeld(t, c, held{[]devices.Device{b}, []devices.Credential{cb}, []devices.PresenceRow{presence("b", muster.PresenceOffline)}})
			wantKind(t, c.DeleteDevices(ctx, []muster.DeviceID{"a"}), muster.NotFound)
		})
		t.Run("a deleted device's id can be used again, without its old credentials", func(t *testing.T) {
			wantNil(t, c.InsertDevices(ctx, []devices.Device{a}, nil))
			wantHeld(t, c, held{[]devices.Device{a, b}, []devices.Credential{cb}, []devices.PresenceRow{presence("b", muster.PresenceOffline)}})
		})
	})
}

// refusedDevices holds InsertDevices to all or nothing.
func refusedDevices(t *testing.T, c *control.Control, want held) {
	n, o := device("new"), device("other")
	cases := []struct {
		name string
		ds   []devices.Device
		cs   []devices.Credential
		kind muster.Kind
	}{
		{"one device id that is taken refuses all", []devices.Device{n, device("a"), o}, []devices.Credential{credential("cred_8", "new")}, muster.Conflict},
		{"one credential id that is taken refuses all", []devices.Device{n}, []devices.Credential{credential("cred_8", "new"), credential("cred_1", "new")}, muster.Conflict},
		{"one device named twice refuses all", []devices.Device{n, o, n}, nil, muster.Conflict},
		{"a credential of a device that is not in the list refuses all", []devices.Device{n}, []devices.Credential{credential("cred_8", "a")}, muster.Invalid},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			wantKind(t, c.InsertDevices(t.Context(), tc.ds, tc.cs), tc.kind)
			wantHeld(t, c, want)
		})
	}
}

func TestManyDevices(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		const n = 10_000
		ds, cs, ps := make([]devices.Device, n), make([]devices.Credential, n), make([]devices.PresenceRow, n)
		for i := range n {
			ds[i] = device(fmt.Sprintf("d%05d", i))
			cs[i] = credential(fmt.Sprintf("cred_%05d", i), string(ds[i].ID))
			ps[i] = presence(string(ds[i].ID), muster.PresenceOnline)
		}
		t.Run("10,000 devices with credentials are inserted in one call", func(t *testing.T) {
			wantNil(t, c.InsertDevices(ctx, ds, cs))
			wantNil(t, c.SavePresence(ctx, ps))
			wantHeld(t, c, held{ds, cs, ps})
		})
		t.Run("10,000 more of which the last is taken are refused whole", func(t *testing.T) {
			more := slices.Clone(ds)
			for i := range more[:n-1] {
				more[i].ID = "e" + more[i].ID
			}
			wantKind(t, c.InsertDevices(ctx, more, nil), muster.Conflict)
			wantHeld(t, c, held{ds, cs, ps})
		})
	})
}

func TestOrderAndErrors(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		t.Run("text sorts bytewise and differs by case", func(t *testing.T) {
			ids := []string{"b", "B", "a", "_", ":", "-", ".", "10", "9", "Z", "aa"}
			var ds []devices.Device
			for _, id := range ids {
				ds = append(ds, device(id))
			}
			wantNil(t, c.InsertDevices(ctx, ds, nil))
			slices.Sort(ids)
			var got []string
			for _, d := range holds(t, c).Devices {
				got = append(got, string(d.ID))
			}
			if diff := cmp.Diff(ids, got); diff != "" {
				t.Errorf("order differs (-want +got):\n%s", diff)
			}
		})
		t.Run("an error of the caller ends a load and is returned as it is", func(t *testing.T) {
			stop, n := errors.New("stop"), 0
			err := c.LoadDevices(ctx, func(devices.Device) error { n++; return stop })
			if !errors.Is(err, stop) || n != 1 {
				t.Errorf("%d calls and error %v, want one call and %v", n, err, stop)
			}
		})
		t.Run("a cancelled call is unavailable and changes nothing", func(t *testing.T) {
			gone, cancel := context.WithCancel(ctx)
			cancel()
			before := holds(t, c)
			err := c.InsertDevices(gone, []devices.Device{device("late")}, nil)
			wantKind(t, err, muster.Unavailable)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the cause is %v, want context canceled", err)
			}
			wantHeld(t, c, before)
		})
	})
}

func TestPresence(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		ds := []devices.Device{device("a"), device("b")}
		wantNil(t, c.InsertDevices(ctx, ds, nil))
		save := func(rows ...devices.PresenceRow) {
			t.Helper()
			wantNil(t, c.SavePresence(ctx, rows))
		}
		on, off, quiet := muster.PresenceOnline, muster.PresenceOffline, muster.PresenceQuiet
		t.Run("rows are inserted and replaced", func(t *testing.T) {
			save(presence("a", on))
			save(presence("b", on), presence("a", off))
			wantHeld(t, c, held{Devices: ds, Presence: []devices.PresenceRow{presence("a", off), presence("b", on)}})
		})
		t.Run("the last of two rows of one device is kept", func(t *testing.T) {
			save(presence("a", on), presence("a", quiet))
			wantHeld(t, c, held{Devices: ds, Presence: []devices.PresenceRow{presence("a", quiet), presence("b", on)}})
		})
		t.Run("a device that is not there is left out, the others are saved", func(t *testing.T) {
			save(presence("gone", on), presence("b", off))
			wantHeld(t, c, held{Devices: ds, Presence: []devices.PresenceRow{presence("a", quiet), presence("b", off)}})
		})
		t.Run("no rows are no error", func(t *testing.T) { save() })
	})
}

func TestAccounts(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		k1 := accounts.APIKey{ID: "key_1", Name: `ci "x"`, Hash: sha256.Sum256([]byte("1")), Scopes: []string{"devices:read", "mqtt"}, Created: 1, Expires: 2}
		k2 := accounts.APIKey{ID: "key_2", Hash: sha256.Sum256([]byte("2")), Created: 3}
		s1 := accounts.Session{ID: "ses_1", Hash: sha256.Sum256([]byte("3")), Role: "admin", Key: "key_1", Created: 4, Expires: 5}
		t.Run("API keys are inserted, listed and deleted", func(t *testing.T) {
			wantNil(t, c.InsertAPIKey(ctx, k2))
			wantNil(t, c.InsertAPIKey(ctx, k1))
			wantKind(t, c.InsertAPIKey(ctx, k1), muster.Conflict)
			got, err := c.APIKeys(ctx)
			wantNil(t, err)
			if diff := cmp.Diff([]accounts.APIKey{k1, k2}, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("API keys differ (-want +got):\n%s", diff)
			}
			wantNil(t, c.DeleteAPIKey(ctx, "key_1"))
			wantKind(t, c.DeleteAPIKey(ctx, "key_1"), muster.NotFound)
			if got, err = c.APIKeys(ctx); err != nil || len(got) != 1 {
				t.Errorf("%d API keys and error %v, want one", len(got), err)
			}
		})
		s2 := accounts.Session{ID: "ses_2", Hash: sha256.Sum256([]byte("4")), Role: "viewer", Created: 6, Expires: 7}
		t.Run("sessions are inserted, listed and deleted", func(t *testing.T) {
			wantNil(t, c.WriteAccounts(ctx, accounts.Batch{Sessions: []accounts.Session{s2, s1}}))
			got, err := c.Sessions(ctx)
			wantNil(t, err)
			if diff := cmp.Diff([]accounts.Session{s1, s2}, got); diff != "" {
				t.Errorf("sessions differ (-want +got):\n%s", diff)
			}
			wantNil(t, c.DeleteSession(ctx, "ses_1"))
			wantKind(t, c.DeleteSession(ctx, "ses_1"), muster.NotFound)
			if got, err = c.Sessions(ctx); err != nil || len(got) != 1 {
				t.Errorf("%d sessions and error %v, want one", len(got), err)
			}
		})
		t.Run("a setting is empty, set and set again", func(t *testing.T) {
			for _, want := range []string{"", "one", "two"} {
				if want != "" {
					wantNil(t, c.SetSetting(ctx, "name", want))
				}
				if got, err := c.Setting(ctx, "name"); err != nil || got != want {
					t.Errorf("the setting is %q, error %v; want %q", got, err, want)
				}
			}
		})
	})
}

func TestMigrations(t *testing.T) {
	onEachEmpty(t, func(t *testing.T, e engine) {
		a := device("a")
		t.Run("what was kept is there after reopening", func(t *testing.T) {
			c, err := control.Open(t.Context(), e.open(t), e.dialect)
			wantNil(t, err)
			wantNil(t, c.InsertDevices(t.Context(), []devices.Device{a}, nil))
			wantNil(t, c.Close())
			wantHeld(t, e.control(t), held{Devices: []devices.Device{a}})
		})
		t.Run("a newer schema is refused with a clear sentence", func(t *testing.T) {
			h := e.open(t)
			_, err := h.Write.ExecContext(t.Context(), `INSERT INTO muster_control_schema (version_id, is_applied) VALUES ($1, $2)`, 987_654, true)
			wantNil(t, err)
			_, err = control.Open(t.Context(), h, e.dialect)
			wantKind(t, err, muster.Invalid)
			want := regexp.MustCompile(`^database schema 987654 is newer than this muster knows \(\d+\); use a newer muster$`)
			if got := muster.Public(err); !want.MatchString(got) {
				t.Errorf("the message is %q, want %s", got, want)
			}
			if err := h.Write.PingContext(t.Context()); err == nil || errors.Is(err, sql.ErrNoRows) {
				t.Error("the handles are open after a failed Open")
			}
		})
	})
}

func TestConcurrentStarts(t *testing.T) {
	onEachEmpty(t, func(t *testing.T, e engine) {
		if !e.postgres {
			return // one process at a time opens the file; the data directory's lock holds that
		}
		const starts = 4
		opened := make(chan error, starts)
		for range starts {
			h := e.open(t)
			go func() {
				c, err := control.Open(t.Context(), h, e.dialect)
				if err == nil {
					err = c.Close()
				}
				opened <- err
			}()
		}
		for range starts {
			wantNil(t, <-opened)
		}
		wantHeld(t, e.control(t), held{})
	})
}

func TestTheSchemaHasAName(t *testing.T) {
	lite, err := control.Schema(control.SQLite())
	wantNil(t, err)
	pg, err := control.Schema(control.Postgres())
	wantNil(t, err)
	if digest := regexp.MustCompile(`^[0-9a-f]{32}$`); !digest.MatchString(lite) || !digest.MatchString(pg) || lite == pg {
		t.Errorf("the schemas are %q on SQLite and %q on PostgreSQL, want two digests that differ", lite, pg)
	}
}
