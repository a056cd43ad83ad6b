package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"muster"
	"muster/ingest"
)

const (
	telemetryStream  = "TEL_00"
	telemetrySubject = "tel.00"
	incarnationKey   = "muster_incarnation"
	callTimeout      = 5 * time.Second
	codeMaxBytes     = 10077 // JetStream: maximum bytes exceeded
)

// Log is the telemetry log: one stream, written by one process. It implements
// ingest.Log.
type Log struct {
	bus    *Bus
	stream jetstream.Stream
	cfg    jetstream.StreamConfig
}

// TelemetryLog opens the telemetry log, making it when it does not exist. A log
// made anew has another incarnation, by which the writer notices.
func (b *Bus) TelemetryLog(ctx context.Context) (*Log, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cfg := jetstream.StreamConfig{
		Name: telemetryStream, Subjects: []string{telemetrySubject}, Storage: jetstream.FileStorage,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, MaxBytes: b.cfg.MaxBytes,
		Replicas: 1, Compression: jetstream.S2Compression, AllowDirect: true, Duplicates: 2 * time.Minute,
		Metadata: map[string]string{incarnationKey: rand.Text()},
	}
	stream, err := b.js.Stream(ctx, telemetryStream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		if stream, err = b.js.CreateStream(ctx, cfg); err != nil {
			return nil, fmt.Errorf("make the telemetry log: %w", err)
		}
	case err != nil:
		return nil, fmt.Errorf("open the telemetry log: %w", err)
	default:
		cfg.Metadata = stream.CachedInfo().Config.Metadata
		if stream, err = b.js.UpdateStream(ctx, cfg); err != nil {
			return nil, fmt.Errorf("update the telemetry log: %w", err)
		}
	}
	return &Log{bus: b, stream: stream, cfg: cfg}, nil
}

// Append implements ingest.Log: the answer comes after the fsync.
func (l *Log) Append(ctx context.Context, id string, frame []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	msg := &nats.Msg{Subject: telemetrySubject, Data: frame, Header: nats.Header{nats.MsgIdHdr: []string{id}}}
	ack, err := l.bus.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
	if err != nil {
		if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == codeMaxBytes {
			return 0, muster.Errorf(muster.Busy, "the log is full: %w", err)
		}
		return 0, muster.Errorf(muster.Unavailable, "append to the log: %w", err)
	}
	return ack.Sequence, nil
}

// Read implements ingest.Log.
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

// State implements ingest.Log.
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

// Purge implements ingest.Log.
func (l *Log) Purge(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(seq+1)); err != nil {
		return muster.Errorf(muster.Unavailable, "purge the log: %w", err)
	}
	return nil
}

// Renew implements ingest.Log.
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
