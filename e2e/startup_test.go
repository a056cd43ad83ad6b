package e2e

import (
	"context"
	"database/sql"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/store/postgres/pgtest"
)

const refuseLimit = 40 * time.Second

// refuses runs muster serve and wants it to end with exit code 1 and one sentence
// on stderr that says all of what is wanted.
func refuses(t *testing.T, as *syscall.Credential, args []string, want ...string) {
	t.Helper()
	r := execute(t, refuseLimit, func(ctx context.Context) *exec.Cmd {
		c := exec.CommandContext(ctx, program, append([]string{"serve"}, args...)...)
		c.Dir = "/"
		c.Env = append(os.Environ(), "MUSTER_ADMIN_KEY=mst_0123456789abcdefghij", "HOME=/")
		if as != nil {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		}
		return c
	})
	if r.code != 1 {
		t.Errorf("exit code %d, want 1", r.code)
	}
	sentence, rest, ended := strings.Cut(r.stderr, "\n")
	if !ended || rest != "" || !strings.HasPrefix(sentence, "muster: ") {
		t.Errorf("stderr is not one sentence:\n%s", r.stderr)
	}
	for _, w := range want {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("stderr does not say %q:\n%s", w, r.stderr)
		}
	}
}

// flags returns the flags of a server that would start.
func flags(t *testing.T, more ...string) []string {
	t.Helper()
	return append([]string{"--data", filepath.Join(t.TempDir(), "data"), "--http", freeAddr(t), "--mqtt", freeAddr(t)}, more...)
}

func TestAStartThatFailsIsOneSentence(t *testing.T) {
	t.Parallel()
	t.Run("the data directory lies under a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refuses(t, nil, flags(t, "--data", filepath.Join(file, "data")), "data directory", "not a directory")
	})
	t.Run("the data directory may not be written", func(t *testing.T) {
		dir := t.TempDir()
		// The test's own directory lets others in, but not write.
		for _, d := range []string{dir, filepath.Dir(dir)} {
			if err := os.Chmod(d, 0o555); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { _ = os.Chmod(filepath.Dir(dir), 0o755) }) // so that it can be removed
		var nobody *syscall.Credential
		if os.Geteuid() == 0 { // whom no mode stops
			nobody = &syscall.Credential{Uid: 65_534, Gid: 65_534}
		}
		refuses(t, nobody, flags(t, "--data", dir), "data directory", "permission denied")
	})
	t.Run("a port is in use", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for _, flag := range []string{"--mqtt", "--http"} {
			refuses(t, nil, flags(t, flag, l.Addr().String()), l.Addr().String(), "address already in use")
		}
	})
	t.Run("another server has the data directory", func(t *testing.T) {
		m := serve(t)
		refuses(t, nil, flags(t, "--data", m.data), "another muster", m.data)
		m.stop()
	})
	t.Run("no database is there", func(t *testing.T) {
		addr := freeAddr(t)
		refuses(t, nil, flags(t, "--database", "postgres://u:sesame@"+addr+"/db"), addr, "connection refused")
	})
	t.Run("the database does not answer", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		refuses(t, nil, flags(t, "--database", "postgres://u:sesame@"+l.Addr().String()+"/db"), l.Addr().String(), "no answer")
	})
	t.Run("a flag is wrong", func(t *testing.T) {
		refuses(t, nil, flags(t, "--no-such-flag"), "--no-such-flag")
		refuses(t, nil, flags(t, "--ack", "sometimes"), "--ack", "received", "durable", "stored")
		refuses(t, nil, flags(t, "--max-packet", "many"), "--max-packet")
		refuses(t, nil, flags(t, "--database", "mysql://u:sesame@h/db"), "postgres://")
	})
	t.Run("the admin key is too short", func(t *testing.T) {
		refuses(t, nil, flags(t, "--admin-key", "mst_short"), "MUSTER_ADMIN_KEY", "20")
	})
}

// TestASecretInAFlagIsNotPrinted looks for a database password in what a failed
// start says.
func TestASecretInAFlagIsNotPrinted(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"postgres://u:sesame@" + freeAddr(t) + "/db", "mysql://u:sesame@h/db", "postgres://u:sesame@h:notaport/db", "postgres://u:ses%zzame@h/db"} {
		r := command(t, program, append([]string{"serve"}, flags(t, "--database", dsn)...)...)
		if r.code != 1 || strings.Contains(r.stdout+r.stderr, "sesame") || strings.Contains(r.stdout+r.stderr, "ses%zzame") {
			t.Errorf("with %s: %s", dsn, r)
		}
	}
}

// TestANewerSchemaIsLeftAlone makes each database look as if a later muster had
// written it.
func TestANewerSchemaIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"telemetry.db", "control.db"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			m := serve(t)
			m.stop()
			bumpSQLite(t, filepath.Join(m.data, file))
			refuses(t, nil, flags(t, "--data", m.data), "schema", "9999", "newer")
		})
	}
	for _, table := range []string{"telemetry", "control"} {
		t.Run("postgresql "+table, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Empty(t, timescale(t))
			m := serve(t, "--database", dsn)
			m.stop()
			sqlOn(t, dsn, "INSERT INTO muster_"+table+"_schema (version_id, is_applied) VALUES (9999, true)")
			refuses(t, nil, flags(t, "--database", dsn), "schema", "9999", "newer")
		})
	}
}

// bumpSQLite writes a schema version from the future.
func bumpSQLite(t *testing.T, path string) {
	t.Helper()
	file := url.URL{Scheme: "file", Path: path}
	db, err := sql.Open("sqlite", file.String())
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	defer db.Close()
	var table string
	err = db.QueryRow(`SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'version_id'`).Scan(&table)
	if err != nil {
		t.Fatalf("find the schema's version in %s: %v", path, err)
	}
	if _, err := db.Exec(`INSERT INTO "` + table + `" (version_id, is_applied) VALUES (9999, 1)`); err != nil {
		t.Fatalf("bump the schema of %s: %v", path, err)
	}
}
