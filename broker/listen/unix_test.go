package listen

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"muster"
)

func TestUnixSocket(t *testing.T) {
	t.Run("it has mode 0660 and no address, is not limited, and goes at close", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "mqtt.sock")
		r := open(t, Config{Kind: Unix, Addr: path, Limits: NewLimits(LimitsConfig{Rate: 1, Burst: 1})})
		st, err := os.Lstat(path)
		if err != nil || st.Mode() != fs.ModeSocket|0o660 {
			t.Fatalf("mode %v, error %v", st.Mode(), err)
		}
		for range 3 {
			c := r.dial(t)
			g := r.next(t)
			if g.info.Listener != Unix || g.info.Peer.IsValid() {
				t.Errorf("info %+v", g.info)
			}
			say(t, c, "ping")
			hear(t, g, "ping")
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, filepath.Dir(path))
	})
	t.Run("a stale file is replaced, also one of a start that was cut short", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "mqtt.sock")
		stale(t, path)
		stale(t, path+newSuffix)
		r := open(t, Config{Kind: Unix, Addr: path})
		r.dial(t)
		r.next(t)
		wantFiles(t, filepath.Dir(path), "mqtt.sock")
	})
	t.Run("one that somebody listens on is a conflict and stays", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "mqtt.sock")
		r := open(t, Config{Kind: Unix, Addr: path})
		if _, err := Open(t.Context(), Config{Kind: Unix, Addr: path}); muster.KindOf(err) != muster.Conflict {
			t.Errorf("error %v, want a Conflict", err)
		}
		r.next(t) // the question whether somebody listens
		r.dial(t)
		r.next(t)
	})
	t.Run("a file that is no socket is a conflict and stays", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "mqtt.sock")
		write(t, path, []byte("mine"))
		if _, err := Open(t.Context(), Config{Kind: Unix, Addr: path}); muster.KindOf(err) != muster.Conflict {
			t.Errorf("error %v, want a Conflict", err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
			t.Errorf("the file holds %q, error %v", text, err)
		}
	})
	t.Run("a file that replaced ours stays at close", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "mqtt.sock")
		r := open(t, Config{Kind: Unix, Addr: path})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		write(t, path, []byte("mine"))
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, filepath.Dir(path), "mqtt.sock")
	})
	t.Run("a directory that is not there is an error", func(t *testing.T) {
		_, err := Open(t.Context(), Config{Kind: Unix, Addr: filepath.Join(t.TempDir(), "no", "mqtt.sock")})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}

// stale leaves a socket file that nobody listens on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(want) || len(all) == 1 && all[0].Name() != want[0] {
		t.Errorf("files %v, want %v", all, want)
	}
}
