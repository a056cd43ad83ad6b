package bus

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"muster"
)

// Limits of the embedded server.
const (
	maxPayload   = 4 << 20  // bytes of one entry
	maxMemory    = 64 << 20 // bytes of memory streams
	storeSlack   = 64 << 20 // bytes on disk beyond the logs' own bounds
	sessionBytes = 1 << 30  // default bound of the session log
	readyTimeout = 30 * time.Second
)

// Config is what Open needs.
type Config struct {
	Dir      string // where the log lies; made when it is missing
	MaxBytes int64  // bound of the telemetry log
	// SessionBytes is the bound of the broker's session log, for which room is kept
	// beside the telemetry log. Default 1 GiB.
	SessionBytes int64
	Logger       *slog.Logger
}

// Bus is the open server with its durable logs.
type Bus struct {
	cfg  Config
	srv  *server.Server
	conn *nats.Conn
	js   jetstream.JetStream
}

// Open starts the embedded server on the data in cfg.Dir. It listens on no port.
func Open(ctx context.Context, cfg Config) (*Bus, error) {
	if cfg.SessionBytes <= 0 {
		cfg.SessionBytes = sessionBytes
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, muster.Errorf(muster.Invalid, "make the log's directory: %w", err)
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "muster", DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: filepath.Clean(cfg.Dir), SyncAlways: true,
		JetStreamMaxStore: cfg.MaxBytes + cfg.SessionBytes + storeSlack, JetStreamMaxMemory: maxMemory,
		MaxPayload: maxPayload, MaxPending: 64 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("make the log's server: %w", err)
	}
	srv.SetLogger(&natsLogger{cfg.Logger}, false, false)
	srv.Start()
	b := &Bus{cfg: cfg, srv: srv}
	if err := b.connect(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Bus) connect(ctx context.Context) error {
	wait := readyTimeout
	if dl, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(dl))
	}
	if !b.srv.ReadyForConnections(wait) {
		return muster.Errorf(muster.Unavailable, "the log in %s did not open within %s", b.cfg.Dir, wait)
	}
	conn, err := nats.Connect("", nats.InProcessServer(b.srv), nats.Name("muster"), nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		return fmt.Errorf("connect to the log: %w", err)
	}
	b.conn = conn
	if b.js, err = jetstream.New(conn); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	return nil
}

// SessionBytes is the bound of the session log, for OpenLog.
func (b *Bus) SessionBytes() int64 { return b.cfg.SessionBytes }

// Ready says why the log can not be used, nil when it can.
func (b *Bus) Ready() error {
	if !b.srv.Running() || !b.conn.IsConnected() {
		return muster.Errorf(muster.Unavailable, "the log is not running")
	}
	return nil
}

// Close stops the embedded server and waits for it.
func (b *Bus) Close() {
	if b.conn != nil {
		b.conn.Close()
	}
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
}

// natsLogger sends the embedded server's own words to the log: what it notes about
// itself is of interest only for debugging.
type natsLogger struct{ log *slog.Logger }

func (l *natsLogger) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }
func (l *natsLogger) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v) }
func (l *natsLogger) Errorf(format string, v ...any)  { l.say(slog.LevelError, format, v) }
func (l *natsLogger) Fatalf(format string, v ...any)  { l.say(slog.LevelError, format, v) }
func (l *natsLogger) Debugf(string, ...any)           {}
func (l *natsLogger) Tracef(string, ...any)           {}

func (l *natsLogger) say(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, "embedded log server", "says", fmt.Sprintf(format, v...))
}
