//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/deliver"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/store/control"
	"muster/store/sqlite"
)

const (
	imageBytes     = 64 << 20
	rangeBytes     = 1 << 20
	rangesAtOnce   = 200
	rangesOfRound  = 3000
	downloadAction = 1<<8 | 1
)

// BenchmarkFirmwareDownloads fetches ranges of 1 MiB of an image of 64 MiB, 200 at a time, from
// Muster (with its signatures, rights, budgets and metrics, without a bandwidth limit) and from
// nginx (with sendfile and a worker for each core), in turns. Client and server share the cores.
func BenchmarkFirmwareDownloads(b *testing.B) {
	image := make([]byte, imageBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(image) // it never fails
	ours, _, addresses := startDelivery(b, image, "--firmware-bandwidth=-1")
	theirs := startNginx(b, image)
	there := []string{"http://" + theirs.http + "/image"}
	for range b.N {
		fmt.Printf("\nimages over HTTP: %d ranges of 1 MiB of 64 MiB, %d at a time, median of %d rounds; the client beside it on the same cores\n",
			rangesOfRound, rangesAtOnce, rounds)
		fetchRanges(b, addresses, image, rangesAtOnce) // files into memory, connections made once
		fetchRanges(b, there, image, rangesAtOnce)
		idle := ours.memory()
		ours.forgetPeak()
		var mine, its []float64
		var myCPU, itsCPU []float64
		for range rounds {
			rate, cpu := ours.downloads(addresses, image)
			mine, myCPU = append(mine, rate), append(myCPU, cpu)
			rate, cpu = theirs.downloads(there, image)
			its, itsCPU = append(its, rate), append(itsCPU, cpu)
		}
		above := float64(ours.peak()-idle) / (1 << 20)
		rate, cpu := median(mine)/median(its), median(myCPU)/median(itsCPU)
		fmt.Printf("%-34s %10s %10s %8s\n", "", "muster", "nginx", "ratio")
		fmt.Printf("%-34s %10.0f %10.0f %8.2f   goal >= 0.9\n", "MiB/s", median(mine), median(its), rate)
		fmt.Printf("%-34s %10.3f %10.3f %8.2f   goal <= 1.5\n", "processor ms a MiB", median(myCPU), median(itsCPU), cpu)
		fmt.Printf("%-34s %10.1f %30s\n", "MiB above the idle process, peak", above, "goal <= 20")
		b.ReportMetric(rate, "ratio")
		b.ReportMetric(cpu, "cpu-ratio")
		b.ReportMetric(above, "MiB-above-idle")
	}
	b.ReportMetric(0, "ns/op")
}

// downloads fetches a round of ranges and returns MiB a second and the server's processor
// milliseconds for each.
func (s *server) downloads(addresses []string, image []byte) (rate, cpu float64) {
	s.b.Helper()
	used, began := s.familyCPU(), time.Now()
	fetchRanges(s.b, addresses, image, rangesOfRound)
	took := time.Since(began).Seconds()
	const mib = rangesOfRound * rangeBytes >> 20
	return mib / took, float64((s.familyCPU() - used).Microseconds()) / 1000 / mib
}

// familyCPU is cpu with that of the process's children, which are nginx's workers.
func (s *server) familyCPU() time.Duration {
	s.b.Helper()
	total := s.cpu()
	pid := s.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return total // a kernel that does not tell: muster has none
	}
	for child := range strings.FieldsSeq(string(children)) {
		n, err := strconv.Atoi(child)
		if err != nil {
			s.b.Fatal(err)
		}
		total += (&server{b: s.b, cmd: &exec.Cmd{Process: &os.Process{Pid: n}}}).cpu()
	}
	return total
}

// forgetPeak makes peak begin anew (proc(5), clear_refs).
func (s *server) forgetPeak() {
	s.b.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte("5"), 0); err != nil {
		s.b.Fatal(err)
	}
}

// peak returns the most that the server's process had resident, in bytes (proc(5), VmHWM).
func (s *server) peak() int64 {
	s.b.Helper()
	kb, ok := strings.CutSuffix(fact(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid), "VmHWM"), " kB")
	n, err := strconv.ParseInt(strings.TrimSpace(kb), 10, 64)
	if !ok || err != nil {
		s.b.Fatalf("read the server's memory: %q, %v", kb, err)
	}
	return n << 10
}

// fetchRanges fetches n ranges, each address by connections of its own, and holds each to the
// image's bytes at both ends.
func fetchRanges(b *testing.B, addresses []string, image []byte, n int) {
	b.Helper()
	var next atomic.Int64
	errs := make([]error, rangesAtOnce)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = fetcher(addresses[i%len(addresses)], image, &next, int64(n)) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
}

// fetcher fetches ranges over one connection until n are taken.
func fetcher(address string, image []byte, next *atomic.Int64, n int64) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("tcp", u.Host, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	r, buf := bufio.NewReaderSize(conn, 4<<10), make([]byte, 256<<10)
	for {
		i := next.Add(1) - 1
		if i >= n {
			return nil
		}
		from := int(i*7919) % (len(image) - rangeBytes)
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nRange: bytes=%d-%d\r\n\r\n", u.RequestURI(), u.Host, from, from+rangeBytes-1)
		if err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusPartialContent || resp.ContentLength != rangeBytes {
			said, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
			return fmt.Errorf("status %d with %d bytes: %s", resp.StatusCode, resp.ContentLength, said)
		}
		for got := 0; got < rangeBytes; {
			k, err := resp.Body.Read(buf)
			if want := image[from+got : from+got+k]; k > 0 && (want[0] != buf[0] || !bytes.Equal(want[max(0, k-64):], buf[max(0, k-64):k])) {
				return fmt.Errorf("other bytes at %d", from+got)
			}
			if got += k; err != nil && got < rangeBytes {
				return err
			}
		}
	}
}

// startDelivery starts muster with an image that 100 devices were offered, and returns the
// login and address of each. What an operator does by rollouts is put into the data directory as they do.
func startDelivery(b *testing.B, image []byte, flags ...string) (*server, []login, []string) {
	b.Helper()
	s, logins := startMuster(b, "", rangesAtOnce/2) // a device has two downloads at a time
	s.stop()
	data := s.args[2]
	s.args = append(append(s.args, flags...), "--insecure-unsigned")
	s.start()
	digest := sha256.Sum256(image)
	release, err := s.publish(image, hex.EncodeToString(digest[:]))
	if err != nil {
		b.Fatal(err)
	}
	s.stop()
	devices := make([]rollout.Device, len(logins))
	ids := make([]muster.DeviceID, len(logins))
	for i, l := range logins {
		ids[i] = muster.DeviceID(l.id)
		devices[i] = rollout.Device{Rollout: "bench", ID: ids[i]}
	}
	if err := offerAll(b, data, release, devices, ids); err != nil {
		b.Fatal(err)
	}
	secret, err := os.ReadFile(filepath.Join(data, "secret.key"))
	if err != nil {
		b.Fatal(err)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "muster firmware addresses", 32)
	if err != nil {
		b.Fatal(err)
	}
	signer, err := deliver.NewSigner(key, nil)
	if err != nil {
		b.Fatal(err)
	}
	addresses := make([]string, len(ids))
	for i, id := range ids {
		addresses[i] = signer.URL("http://"+s.http, digest, id, downloadAction, time.Now().Add(24*time.Hour))
	}
	s.start()
	return s, logins, addresses
}

// publish uploads an image, and publishes a release of it, which nobody signed. It returns the release's id.
func (s *server) publish(image []byte, digest string) (release string, err error) {
	url := "http://" + s.http + "/api/v1/firmware/artifacts?filename=bench.bin&sha256=" + digest
	req, err := http.NewRequestWithContext(s.b.Context(), http.MethodPost, url, bytes.NewReader(image))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if said, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("the image is answered %d %s, %w", resp.StatusCode, said, err)
	}
	manifest := firmware.Manifest{
		Schema: firmware.Schema, Product: "bench", Version: "1.0.0", Type: "app", Created: time.Now().UTC().Truncate(time.Second),
		Files: []firmware.File{{Filename: "bench.bin", SHA256: digest, Size: int64(len(image)), Format: "raw"}},
	}
	var made struct{ ID string }
	status, err := s.ask(http.MethodPost, "/api/v1/firmware/releases", map[string]any{"manifest": manifest}, &made)
	if err != nil || status != http.StatusCreated {
		return "", fmt.Errorf("make the release: status %d, %w", status, err)
	}
	if status, err = s.ask(http.MethodPost, "/api/v1/firmware/releases/"+made.ID+"/publish", nil, nil); err != nil || status != http.StatusOK {
		return "", fmt.Errorf("publish the release: status %d, %w", status, err)
	}
	return made.ID, nil
}

// offerAll makes a rollout of a release that was offered to all of its devices.
func offerAll(b *testing.B, data, release string, devices []rollout.Device, ids []muster.DeviceID) (err error) {
	h, err := sqlite.OpenControl(b.Context(), data)
	if err != nil {
		return err
	}
	c, err := control.Open(b.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r := &rollout.Rollout{ID: "bench", Seed: "s", Release: release, Product: "bench", Status: rollout.Running, Membership: rollout.Snapshot, Plan: rollout.DefaultPlan(), Version: 1}
	r.Plan.Phases, r.Counts = []rollout.Phase{{Name: "all", Percent: 100}}, make([]rollout.Counts, 1)
	if err := c.InsertRollout(b.Context(), r, devices); err != nil {
		return err
	}
	return c.Decide(b.Context(), "bench", director.Fence{}, muster.MicrosOf(time.Now()), director.Select{IDs: ids},
		func(_ *rollout.Rollout, list []*rollout.Device) (out []rollout.Change, err error) {
			for _, d := range list {
				d.State, d.Action, d.Attempt = rollout.Offered, downloadAction, 1
				out = append(out, rollout.Change{Device: d.ID, Action: d.Action, Attempt: 1, Event: rollout.Offer, To: d.State})
			}
			return out, nil
		})
}

// startNginx starts Debian's nginx with what it comes with for files, and no log.
func startNginx(b *testing.B, image []byte) *server {
	b.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx"
	}
	if _, err := os.Stat(path); err != nil {
		b.Skip("there is no nginx to compare with (apt-get install nginx, and keep its service from starting)")
	}
	dir := b.TempDir()
	s := &server{b: b, name: "nginx", http: freeAddr(b), path: path}
	config := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log stderr error; worker_processes auto;
%[3]sevents { worker_connections 1024; }
http {
	access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; client_body_temp_path %[1]s/1; proxy_temp_path %[1]s/2;
	fastcgi_temp_path %[1]s/3; uwsgi_temp_path %[1]s/4; scgi_temp_path %[1]s/5;
	server { listen %[2]s; root %[1]s; }
}
`, dir, s.http, asRoot())
	for name, content := range map[string][]byte{"nginx.conf": []byte(config), "image": image} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s.args = []string{"-c", filepath.Join(dir, "nginx.conf"), "-p", dir, "-e", "stderr"}
	s.listens = func() bool {
		c, err := net.DialTimeout("tcp", s.http, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	b.Cleanup(s.stop)
	s.start()
	return s
}

// asRoot keeps nginx's workers from becoming a user who may not read the benchmark's files.
func asRoot() string {
	if os.Geteuid() == 0 {
		return "user root;\n"
	}
	return ""
}
