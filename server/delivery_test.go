package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/firmware/deliver"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/server"
	"muster/server/servertest"
	"muster/store/control"
)

// fileCounter is a listener that counts what its connections are handed as files, which the
// kernel sends by itself.
type fileCounter struct {
	net.Listener
	files *atomic.Int64
}

func (l fileCounter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{c.(*net.TCPConn), l.files}, nil
}

type countedConn struct {
	*net.TCPConn
	files *atomic.Int64
}

func (c *countedConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			c.files.Add(n)
		}
	}
	return n, err
}

// offered is a server with an image and a device that was offered it.
type offered struct {
	*testing.T
	server  *server.Server
	control *control.Control
	image   []byte
	path    string // and query, of its address
}

const offeredAction = 1<<8 | 1

func newOffered(t *testing.T, size int) *offered {
	t.Helper()
	o := &offered{T: t, server: servertest.Start(t), image: make([]byte, size)}
	_, _ = rand.NewChaCha8([32]byte{1}).Read(o.image) // it never fails
	_, signer, store := o.server.DeliveryForTest()
	o.control = store
	digest := sha256.Sum256(o.image)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	u := &updating{Server: o.server, t: t, image: o.image}
	u.publish("app", "2.0.0")
	var made map[string]any
	call(t, o.server, http.MethodPost, "/api/v1/devices", map[string]string{"id": "d1"}, &made)
	r := &rollout.Rollout{ID: "r1", Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: rollout.DefaultPlan(), Version: 1, Release: u.release}
	r.Plan.Phases = []rollout.Phase{{Name: "all", Percent: 100}}
	r.Counts = make([]rollout.Counts, 1)
	must(store.InsertRollout(t.Context(), r, []rollout.Device{{Rollout: "r1", ID: "d1"}}))
	o.state(rollout.Offered)
	o.path = signer.URL("", digest, "d1", offeredAction, time.Now().Add(time.Hour))
	return o
}

// state puts the device into a state of its rollout.
func (o *offered) state(to rollout.State) {
	o.Helper()
	err := o.control.Decide(o.Context(), "r1", director.Fence{}, muster.MicrosOf(time.Now()), director.Select{IDs: []muster.DeviceID{"d1"}},
		func(_ *rollout.Rollout, devices []*rollout.Device) ([]rollout.Change, error) {
			c := rollout.Change{Device: "d1", Action: offeredAction, Attempt: 1, From: devices[0].State, To: to}
			devices[0].State, devices[0].Action, devices[0].Attempt = to, offeredAction, 1
			return []rollout.Change{c}, nil
		})
	if err != nil {
		o.Fatal(err)
	}
}

func (o *offered) get(base string) (int, []byte) {
	o.Helper()
	ctx, cancel := context.WithTimeout(o.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+o.path, nil)
	if err != nil {
		o.Fatal(err)
	}
	if strings.HasPrefix(o.path, deliver.Path) {
		req.Header.Set("Accept-Encoding", "gzip, zstd") // images are not compressed
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		o.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		o.Fatal(err)
	}
	return resp.StatusCode, body
}

// TestAnImageReachesItsConnectionAsAFileThroughTheWholeServer fails when anything between the
// connection and the image wraps the ResponseWriter without handing ReadFrom on.
func TestAnImageReachesItsConnectionAsAFileThroughTheWholeServer(t *testing.T) {
	o := newOffered(t, 8<<20)
	own := o.server.HTTPForTest()
	var files atomic.Int64
	s := httptest.NewUnstartedServer(own.Handler)
	s.Listener, s.Config.ConnContext = deliver.Listen(fileCounter{s.Listener, &files}), own.ConnContext
	s.Start()
	status, body := o.get(s.URL)
	s.Close() // waits for the answer's end on its side
	if status != http.StatusOK || !bytes.Equal(body, o.image) {
		t.Fatalf("status %d, %d bytes", status, len(body))
	}
	if got, want := files.Load(), int64(len(o.image)); got < want {
		t.Errorf("%d bytes went as a file, want %d", got, want)
	}
}

func TestADeviceFetchesItsImageUntilItsActionIsOver(t *testing.T) {
	o := newOffered(t, 1<<20)
	if status, body := o.get(o.server.URL()); status != http.StatusOK || !bytes.Equal(body, o.image) {
		t.Fatalf("status %d, %d bytes", status, len(body))
	}
	o.await("the download in the metrics", func() bool {
		_, text := o.plain("/metrics")
		return bytes.Contains(text, []byte(`muster_firmware_downloads_total{result="sent"} 1`)) &&
			bytes.Contains(text, []byte(`muster_http_requests_total{code="200",route="/fw/blob/{sha256}"} 1`))
	})
	for _, over := range []rollout.State{rollout.Queued} { // it was taken back
		o.state(over)
		o.await("410 in the state "+over.String(), func() bool { // that it goes on is good for 2 s
			status, body := o.get(o.server.URL())
			return status == http.StatusGone && bytes.Contains(body, []byte(`"code":"gone"`))
		})
		o.state(rollout.Offered)
	}
	o.path += "0"
	if status, _ := o.get(o.server.URL()); status != http.StatusForbidden {
		t.Errorf("another signature: status %d", status)
	}
	for path, want := range map[string]int{"/fw": 404, "/fw/": 404, "/fw/blob": 404, "/fw/blob/": 404, "/fw/blob/../x": 404, "/fw/blob/x": 404, "/fw/other/x": 404} {
		if status, body := o.plain(path); status != want || !bytes.Contains(body, []byte(`"code":"not_found"`)) {
			t.Errorf("%s: status %d, %s", path, status, body)
		}
	}
}

// await asks until ok, and fails after 20 s: an answer is counted after its client has it.
func (o *offered) await(what string, ok func() bool) {
	o.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			o.Fatal("waited in vain for " + what)
		}
	}
}

// plain gets a path without a right.
func (o *offered) plain(path string) (int, []byte) {
	o.Helper()
	at := o.path
	defer func() { o.path = at }()
	o.path = path
	return o.get(o.server.URL())
}

// TestTheServerStopsWhileADeviceFetchesAnImage would wait for the slowest of them else.
func TestTheServerStopsWhileADeviceFetchesAnImage(t *testing.T) {
	var resp *http.Response
	t.Cleanup(func() { // after the server's stop, which is asked for later and has a limit: the client takes nothing meanwhile
		if resp != nil {
			resp.Body.Close()
		}
	})
	o := newOffered(t, 64<<20) // more than sockets hold
	var err error
	if resp, err = http.Get(o.server.URL() + o.path); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
}
