package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"muster"
)

const (
	socketMode  = 0o660
	probeTime   = time.Second // for asking whether somebody listens on a socket file
	maxUnixPath = 103         // the kernel's 107 less the suffix under which the file is made
	newSuffix   = ".new"
)

// openUnix makes the socket under a name of its own, sets its mode, and only then
// gives it its name: nobody can connect before the mode is right.
func openUnix(ctx context.Context, cfg Config) (*Listener, error) {
	path := cfg.Addr
	if path == "" || len(path) > maxUnixPath {
		return nil, muster.Errorf(muster.Invalid, "listen on unix socket: the path has %d bytes, 1 to %d are allowed", len(path), maxUnixPath)
	}
	if err := unused(ctx, path, false); err != nil {
		return nil, err
	}
	if err := unused(ctx, path+newSuffix, true); err != nil {
		return nil, err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", path+newSuffix)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // Close removes the file under its final name
	}
	own, err := publish(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), ln.Close(), ignoreGone(os.Remove(path+newSuffix)))
	}
	l := newListener(ln, cfg)
	l.addr = &net.UnixAddr{Name: path, Net: "unix"}
	l.remove = func() error { return removeOwn(path, own) }
	return l, nil
}

// publish sets the new socket's mode and gives it its name.
func publish(path string) (fs.FileInfo, error) {
	if err := os.Chmod(path+newSuffix, socketMode); err != nil {
		return nil, err
	}
	if err := os.Rename(path+newSuffix, path); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

// unused makes sure that nobody listens on the socket file at path, and that it is
// none but a socket. It removes the file when told to.
func unused(ctx context.Context, path string, remove bool) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return muster.Errorf(muster.Conflict, "listen on %s: the file exists and is no socket", path)
	}
	d := net.Dialer{Timeout: probeTime}
	nc, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = nc.Close()
		return muster.Errorf(muster.Conflict, "listen on %s: somebody listens there already", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on %s: find out whether somebody does already: %w", path, err)
	}
	if remove {
		return ignoreGone(os.Remove(path))
	}
	return nil
}

// removeOwn removes the socket file unless another process has replaced it.
func removeOwn(path string, own fs.FileInfo) error {
	now, err := os.Lstat(path)
	if err != nil {
		return ignoreGone(err)
	}
	if !os.SameFile(now, own) {
		return nil
	}
	return ignoreGone(os.Remove(path))
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
