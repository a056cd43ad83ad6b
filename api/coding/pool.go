package coding

import (
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// window is how far zstd looks back, in bytes: what a writer costs in memory is a few times that.
const window = 128 << 10

// encoder is *gzip.Writer or *zstd.Encoder.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(w io.Writer)
}

// Pool keeps encoders between answers. The zero Pool is ready, and safe for concurrent use.
type Pool struct{ zstd, gzip sync.Pool }

func (p *Pool) of(coding string) *sync.Pool {
	if coding == Zstd {
		return &p.zstd
	}
	return &p.gzip
}

func (p *Pool) get(coding string, w io.Writer) (encoder, error) {
	if e, ok := p.of(coding).Get().(encoder); ok {
		e.Reset(w)
		return e, nil
	}
	if coding == Zstd {
		e, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window),
			zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, fmt.Errorf("make a zstd encoder: %w", err)
		}
		return e, nil
	}
	e, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("make a gzip encoder: %w", err)
	}
	return e, nil
}

func (p *Pool) put(coding string, e encoder) {
	e.Reset(nil)
	p.of(coding).Put(e)
}
