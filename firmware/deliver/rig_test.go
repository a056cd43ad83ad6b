package deliver_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"muster"
	"muster/firmware/blob"
	"muster/firmware/budget"
	"muster/firmware/budget/budgettest"
	"muster/firmware/deliver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	keyOne = bytes.Repeat([]byte{1}, 32)
	keyTwo = bytes.Repeat([]byte{2}, 32)
)

// rig is a handler on a real listener, with one image.
type rig struct {
	*testing.T
	handler *deliver.Handler
	signer  *deliver.Signer
	url     string
	image   []byte
	path    string
	digest  [32]byte
	gather  *prometheus.Registry
	allowed func(context.Context, deliver.Grant) error
	release int64 // bytes of the release, where it is more than the image
	budgets *budget.Budgets
	counted budgettest.Store // by budgets
	files   atomic.Int64     // bytes that connections were handed as files
	// accepted counts connections.
	accepted atomic.Int64
	// sending counts those that are sending a file now.
	sending atomic.Int64
	client  *http.Client
	now     func() time.Time
}

func newRig(t *testing.T, size int, l deliver.Limits) *rig {
	t.Helper()
	return newRigOn(t, size, l, func(s *httptest.Server) {
		s.Listener, s.Config.ConnContext = deliver.Listen(s.Listener), deliver.WithConn
	})
}

// newRigOn is newRig on a server that is changed before it starts.
func newRigOn(t *testing.T, size int, l deliver.Limits, change func(*httptest.Server)) *rig {
	t.Helper()
	r := &rig{T: t, image: make([]byte, size), gather: prometheus.NewRegistry(), now: time.Now, allowed: func(context.Context, deliver.Grant) error { return nil }}
	_, _ = rand.NewChaCha8([32]byte{1}).Read(r.image) // it never fails
	r.digest = sha256.Sum256(r.image)
	path := filepath.Join(t.TempDir(), "image")
	r.path = path
	if err := os.WriteFile(path, r.image, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.signer, err = deliver.NewSigner(keyOne, nil); err != nil {
		t.Fatal(err)
	}
	r.budgets = budget.New(&r.counted, budget.Options{Wait: time.Second})
	r.handler, err = deliver.New(deliver.Config{
		Signer: r.signer, Budgets: r.budgets, Limits: l, Metrics: r.gather, Now: func() time.Time { return r.now() }, Log: slog.New(slog.DiscardHandler),
		Open: func(d [32]byte) (deliver.Image, error) {
			if d != r.digest {
				return deliver.Image{}, muster.Errorf(muster.NotFound, "there is no such image")
			}
			f, err := os.Open(path)
			if err != nil {
				return deliver.Image{}, err
			}
			steady, err := blob.Steadily(f)
			return deliver.Image{File: f, Size: int64(size), Still: steady.Still}, err
		},
		Allowed: func(ctx context.Context, g deliver.Grant) (int64, error) {
			return max(int64(size), r.release), r.allowed(ctx, g)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(r.handler)
	s.Listener = listener{s.Listener, r}
	change(s)
	s.Start()
	r.url, r.client = s.URL, s.Client()
	t.Cleanup(func() {
		r.handler.End()
		s.Close()
	})
	return r
}

// listener counts what its connections are handed as files, which they send by sendfile.
type listener struct {
	net.Listener
	rig *rig
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.rig.accepted.Add(1)
	return &conn{c.(*net.TCPConn), l.rig}, nil
}

type conn struct {
	*net.TCPConn
	rig *rig
}

func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	c.rig.sending.Add(1)
	defer c.rig.sending.Add(-1)
	n, err := c.TCPConn.ReadFrom(r)
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			c.rig.files.Add(n)
		}
	}
	return n, err
}

// at is the address of the image for a device.
func (r *rig) at(device muster.DeviceID, action int64) string {
	return r.signer.URL(r.url, r.digest, device, action, time.Now().Add(time.Hour))
}

type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // of the body
}

// do sends a request and reads its whole answer.
func (r *rig) do(method, url string, header ...string) answer {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	a.body, a.err = io.ReadAll(resp.Body)
	return a
}

// count returns a metric by its name and, if any, its result.
func (r *rig) count(name, result string) float64 {
	r.Helper()
	families, err := r.gather.Gather()
	if err != nil {
		r.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) == 0 || m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}
