package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"muster"
	"muster/ingest"
)

const (
	telemetryLog   = "TEL_00"
	incarnationKey = "muster_incarnation"
	callTimeout    = 5 * time.Second
	duplicates     = 2 * time.Minute // how long an append's id is known
	codeStore      = 10077           // JetStream: the store refused; its text says why
	textMaxBytes   = "maximum bytes exceeded"
)

// logName is what a log may be called: it becomes a subject.
var logName = regexp.MustCompile(`^[A-Z]{2,8}_[0-9]{2}$`)

// Log is a durable log: one stream of frames numbered from 1, written by one
// process. It implements ingest.Log and the broker's journal.Log.
type Log struct {
	bus     *Bus
	subject string
	stream  jetstream.Stream
	cfg     jetstream.StreamConfig
}

// TelemetryLog opens the telemetry log, making it when it does not exist. A log
// made anew has another incarnation, by which the writer notices.
func (b *Bus) TelemetryLog(ctx context.Context) (*Log, error) {
	return b.openLog(ctx, telemetryLog, b.cfg.MaxBytes, jetstream.S2Compression)
}

// OpenLog opens the log called name ("MQTT_00": letters, a two-digit shard), making
// it when it does not exist. It takes maxBytes at most, then it refuses (Busy); the
// bounds of all logs together must be within what Config gives room for. Only one
// caller at a time may open a log. It is not compressed: with frames of 1 KB records
// S2 halves the rate of appends, and what is written here is soon purged.
func (b *Bus) OpenLog(ctx context.Context, name string, maxBytes int64) (*Log, error) {
	return b.openLog(ctx, name, maxBytes, jetstream.NoCompression)
}

func (b *Bus) openLog(ctx context.Context, name string, maxBytes int64, compression jetstream.StoreCompression) (*Log, error) {
	if !logName.MatchString(name) {
		return nil, muster.Errorf(muster.Invalid, "%q is no name for a log", name)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	subject := strings.ToLower(strings.ReplaceAll(name, "_", "."))
	cfg := jetstream.StreamConfig{
		Name: name, Subjects: []string{subject}, Storage: jetstream.FileStorage,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, MaxBytes: maxBytes,
		Replicas: 1, Compression: compression, AllowDirect: true, Duplicates: duplicates,
		Metadata: map[string]string{incarnationKey: rand.Text()},
	}
	stream, err := b.js.Stream(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		if stream, err = b.js.CreateStream(ctx, cfg); err != nil {
			return nil, fmt.Errorf("make the log %s: %w", name, err)
		}
	case err != nil:
		return nil, fmt.Errorf("open the log %s: %w", name, err)
	default:
		cfg.Metadata = stream.CachedInfo().Config.Metadata
		if stream, err = b.js.UpdateStream(ctx, cfg); err != nil {
			return nil, fmt.Errorf("update the log %s: %w", name, err)
		}
	}
	return &Log{bus: b, subject: subject, stream: stream, cfg: cfg}, nil
}

// Append writes a frame and returns its number after the fsync. An id repeated
// within two minutes appends nothing and returns the first one's number. Busy says
// that the log is full and has not taken the frame; Unavailable that it is not known
// whether it has.
func (l *Log) Append(ctx context.Context, id string, frame []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	msg := &nats.Msg{Subject: l.subject, Data: frame, Header: nats.Header{nats.MsgIdHdr: []string{id}}}
	ack, err := l.bus.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
	if err != nil {
		api, ok := errors.AsType[*jetstream.APIError](err)
		if ok && api.ErrorCode == codeStore && strings.Contains(api.Description, textMaxBytes) {
			return 0, muster.Errorf(muster.Busy, "the log is full: %w", err)
		}
		return 0, muster.Errorf(muster.Unavailable, "append to the log: %w", err)
	}
	return ack.Sequence, nil
}

// Read returns frame seq, NotFound when it was purged or never written.
func (l *Log) Read(ctx context.Context, seq uint64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	msg, err := l.stream.GetMsg(ctx, seq)
	if err != nil {
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, muster.Errorf(muster.NotFound, "the log has no frame %d", seq)
		}
		return nil, muster.Errorf(muster.Unavailable, "read from the log: %w", err)
	}
	return msg.Data, nil
}

// State implements ingest.Log: what the log holds, and its incarnation.
func (l *Log) State(ctx context.Context) (ingest.LogState, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	info, err := l.stream.Info(ctx)
	if err != nil {
		return ingest.LogState{}, muster.Errorf(muster.Unavailable, "read the log's state: %w", err)
	}
	st := ingest.LogState{
		Incarnation: info.Config.Metadata[incarnationKey],
		First:       info.State.FirstSeq, Last: info.State.LastSeq,
		Bytes: int64(info.State.Bytes), MaxBytes: info.Config.MaxBytes,
	}
	if info.State.Msgs == 0 {
		st.First = st.Last + 1
	}
	return st, nil
}

// Bounds returns the numbers of the oldest and the newest frame (first = last+1 when
// there is none), and the bytes they take and may take.
func (l *Log) Bounds(ctx context.Context) (first, last uint64, bytes, maxBytes int64, err error) {
	st, err := l.State(ctx)
	return st.First, st.Last, st.Bytes, st.MaxBytes, err
}

// Purge forgets the frames up to and with seq.
func (l *Log) Purge(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(seq+1)); err != nil {
		return muster.Errorf(muster.Unavailable, "purge the log: %w", err)
	}
	return nil
}

// Renew gives the log another incarnation and returns it.
func (l *Log) Renew(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cfg := l.cfg
	cfg.Metadata = map[string]string{incarnationKey: rand.Text()}
	stream, err := l.bus.js.UpdateStream(ctx, cfg)
	if err != nil {
		return "", muster.Errorf(muster.Unavailable, "renew the log: %w", err)
	}
	l.cfg, l.stream = cfg, stream
	return cfg.Metadata[incarnationKey], nil
}
