package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"muster/firmware/desk"
	"muster/firmware/rollout"
	"muster/server/servertest"
)

// bench is what Debian's swupdate needs: a directory of its own, a key that it trusts, and the
// place where its one file goes.
type bench struct {
	*testing.T
	program, dir string
	app          []byte // what is to be installed

	u       *updates
	now     *process // the newest
	how     settings // of it
	asked   float64  // what it had asked for when it was looked at last
	since   time.Time
	looked  time.Time
	watched int // times that it was started again
	silence time.Duration
}

// settings are what swupdate is started with.
type settings struct {
	at               func() string // address of the server, asked at each start
	version, options string
}

// clientSilence is for how long a swupdate that runs asks the server for nothing, which it polls each second, before it
// is taken to wait for itself for ever: Debian's does that now and then after it has told or fetched something.
const clientSilence = 20 * time.Second

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, program: needs(t, "swupdate"), dir: t.TempDir(), app: make([]byte, 1<<20), silence: clientSilence}
	if _, err := rand.Read(b.app); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(b.dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "30", "-subj", "/CN=e2e",
		"-addext", "extendedKeyUsage=emailProtection,codeSigning")
	return b
}

// run runs a program in the directory.
func (b *bench) run(name string, args ...string) {
	b.Helper()
	cmd := exec.Command(needs(b.T, name), args...)
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// target is where the image's file is installed.
func (b *bench) target() string { return filepath.Join(b.dir, "app.bin") }

// swu makes an image that installs the app by swupdate's handler for raw files. What spoils the
// app in it is done after it was signed.
func (b *bench) swu(spoil func(app []byte)) []byte {
	b.Helper()
	sum := sha256.Sum256(b.app)
	text := fmt.Sprintf("software = { version=\"2.0.0\"; hardware-compatibility:[\"1.0\"]; files:({filename=\"app.bin\";path=%q;sha256=%q;}); }\n",
		b.target(), hex.EncodeToString(sum[:]))
	if err := os.WriteFile(filepath.Join(b.dir, "sw-description"), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	b.run("openssl", "cms", "-sign", "-in", "sw-description", "-out", "sw-description.sig", "-signer", "cert.pem", "-inkey", "key.pem", "-outform", "DER", "-nosmimecap", "-binary")
	sig, err := os.ReadFile(filepath.Join(b.dir, "sw-description.sig"))
	if err != nil {
		b.Fatal(err)
	}
	app := bytes.Clone(b.app)
	if spoil != nil {
		spoil(app)
	}
	var out bytes.Buffer
	for i, f := range []struct {
		name    string
		content []byte
	}{{"sw-description", []byte(text)}, {"sw-description.sig", sig}, {"app.bin", app}, {"TRAILER!!!", nil}} {
		cpio(&out, i+1, f.name, f.content)
	}
	out.Write(make([]byte, -out.Len()&511))
	return out.Bytes()
}

// cpio writes an entry in the "new crc" format, with sums, as cpio -H crc does.
func cpio(w *bytes.Buffer, inode int, name string, content []byte) {
	sum := uint32(0)
	for _, c := range content {
		sum += uint32(c)
	}
	mode, links := 0o100644, 1
	if content == nil {
		inode, mode = 0, 0
	}
	fmt.Fprintf(w, "070702%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name)+1, sum)
	w.WriteString(name + "\x00")
	w.Write(make([]byte, -w.Len()&3))
	w.Write(content)
	w.Write(make([]byte, -w.Len()&3))
}

// process is a swupdate that runs.
type process struct {
	bench *bench
	cmd   *exec.Cmd
	log   string
	done  chan struct{}

	stopped bool
}

// start starts swupdate as the device that it is of a server, with a firmware of a version. While the test waits
// for something it is watched.
func (b *bench) start(u *updates, how settings) {
	b.Helper()
	if how.at == nil {
		how.at = func() string { return u.url }
	}
	b.u, b.how = u, how
	u.each = b.look
	b.launch()
}

// stop stops swupdate.
func (b *bench) stop() { b.now.stop() }

// look starts a swupdate that waits for itself again, as a device's watchdog does.
func (b *bench) look() {
	b.Helper()
	if time.Since(b.looked) < time.Second/2 || b.now.stopped {
		return
	}
	b.looked = time.Now()
	if asked := b.u.served(); asked != b.asked {
		b.asked, b.since = asked, b.looked
	}
	if b.looked.Sub(b.since) < b.silence {
		return
	}
	b.Logf("swupdate asked for nothing in %s, and is started again", b.silence)
	b.watched++
	b.now.stop()
	b.launch()
}

// await waits as u.comesTo does.
func (b *bench) await(what string, ok func() bool) {
	b.Helper()
	await(b.T, what, updateLimit, func() bool {
		b.look()
		return ok()
	})
}

// launch starts swupdate as it was told last.
func (b *bench) launch() {
	b.Helper()
	u := b.u
	config := fmt.Sprintf(`globals:{verbose=false;loglevel=5;};
suricatta:{tenant="default";id=%q;url=%q;targettoken=%q;polldelay=1;retry=10;retrywait=1;nocheckcert=true;};
identify:({name="board";value="muster-a";},{name="fw";value=%q;});
`, u.device, b.how.at(), u.token, b.how.version)
	path := filepath.Join(b.dir, "swupdate.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	p := &process{bench: b, log: filepath.Join(b.dir, "swupdate.log"), done: make(chan struct{})}
	out := appendTo(b.T, p.log)
	defer out.Close()
	// No boot loader, and no marks in it: -c says what came of an update.
	p.cmd = exec.Command(b.program, "-B", "none", "-M", "-m", "-H", "board:1.0", "-k", filepath.Join(b.dir, "cert.pem"), "-f", path, "-p", "touch "+filepath.Join(b.dir, "restarts"), "-u", b.how.options)
	p.cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(b.dir, "tmp")) // its sockets are there
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // it is killed
	}()
	b.Cleanup(func() {
		p.stop()
		if b.Failed() {
			b.Logf("swupdate printed:\n%s", tail(p.log, 6<<10))
		}
	})
	b.now, b.since = p, time.Now()
}

// stop ends swupdate with its children, as a power cut does.
func (p *process) stop() {
	if p.stopped {
		return
	}
	p.stopped = true
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended by itself
	<-p.done
}

// installed says whether the target has what it should.
func (b *bench) installed() bool {
	got, err := os.ReadFile(b.target())
	return err == nil && bytes.Equal(got, b.app)
}

func TestSWUpdateInstallsAndIsConfirmedByItsVersionAfterARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	u := newUpdates(t, "pump-2.0.0.swu", b.swu(nil), 0)
	b.start(u, settings{version: "1.0.0"})
	b.await("its version to be known", func() bool {
		status, _, body := u.send(http.MethodGet, u.url+"/api/v1/devices/"+string(u.device), map[string]string{"Authorization": "Bearer " + servertest.AdminKey}, "")
		return status == http.StatusOK && strings.Contains(body, `"1.0.0"`)
	})
	u.roll()
	a := u.comesTo("swupdate to install", func(a *desk.Action) bool { return a.Device.State == rollout.Installing })
	b.await("swupdate to be done", func() bool { _, err := os.Stat(filepath.Join(b.dir, "restarts")); return err == nil })
	b.stop()
	if !b.installed() {
		t.Fatal("the file is not what the image has")
	}
	if a.Device.From != "1.0.0" {
		t.Errorf("the device had %q when it was offered the release", a.Device.From)
	}
	b.start(u, settings{version: "2.0.0", options: "-c 2"})
	u.comesTo("the update to be confirmed", func(a *desk.Action) bool { return a.Device.State == rollout.Confirmed })
	want := []string{"queued -> offered", "offered -> downloading", "downloading -> installing", "installing -> rebooting", "rebooting -> confirmed"}
	log := u.log(a.Device.Action)
	for range b.watched { // one that was started again before it was done begins anew
		if i := slices.Index(log, "installing -> downloading"); i >= 0 && i+1 < len(log) && log[i+1] == "downloading -> installing" {
			log = slices.Delete(log, i, i+2)
		}
	}
	if !slices.Equal(log, want) {
		t.Errorf("what happened is %q", log)
	}
}

func TestSWUpdateResumesADownloadThatWasCut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	image := b.swu(nil)
	u := newUpdates(t, "pump-2.0.0.swu", image, 0)
	u.roll()
	var carried func() []*carried
	b.start(u, settings{version: "1.0.0", at: func() (at string) { // one that is started again has nothing to go on with: it is cut too
		at, carried = cutting(t, strings.TrimPrefix(u.url, "http://"), len(image)/2)
		return "http://" + at
	}})
	b.await("the file to be there", b.installed)
	u.comesTo("swupdate to say so", func(a *desk.Action) bool {
		return a.Device.State == rollout.Installing || a.Device.State == rollout.Rebooting
	})
	cut, from, rest := resumed(carried(), len(image))
	switch {
	case cut == 0 || from == 0:
		t.Errorf("the first answer was cut after %d bytes, and the second began at %d", cut, from)
	case from > cut || rest > len(image)-from: // what the client had not read of the first it asked for again
		t.Errorf("it was cut after %d bytes, and sent %d from %d on", cut, rest, from)
	case cut+rest >= 2*len(image) || from < cut/2:
		t.Errorf("%d and %d bytes were sent, of an image of %d, the second from %d on", cut, rest, len(image), from)
	}
}

// resumed finds the answer with a whole image that was cut, and the first that was 206 after it: how many bytes the one
// had, where the other began, and how many it had.
func resumed(list []*carried, size int) (cut, from, rest int) {
	whole, part := regexp.MustCompile(`(?s)HTTP/1\.1 200 OK\r\n[^\x00]*?\r\n\r\n`), regexp.MustCompile(`(?s)HTTP/1\.1 206 Partial Content\r\n[^\x00]*?\r\n\r\n`)
	for _, c := range list {
		down := c.down.String()
		if cut == 0 {
			for _, at := range whole.FindAllStringIndex(down, -1) {
				if strings.Contains(down[at[0]:at[1]], fmt.Sprintf("Content-Length: %d\r\n", size)) {
					cut = len(down) - at[1]
				}
			}
		}
		at := part.FindStringIndex(down)
		if at == nil {
			continue
		}
		head := down[at[0]:at[1]]
		var last, of int
		_, line, _ := strings.Cut(head, "Content-Range: ")
		if n, err := fmt.Sscanf(line, "bytes %d-%d/%d", &from, &last, &of); n != 3 || err != nil || of != size || last != size-1 {
			return cut, 0, 0
		}
		if !strings.Contains(c.up.String(), fmt.Sprintf("Range: bytes=%d-", from)) {
			return cut, 0, 0
		}
		return cut, from, min(len(down)-at[1], last+1-from)
	}
	return cut, 0, 0
}

// carried is what went over a connection, in either direction.
type carried struct{ up, down lockedBuffer }

// cutting passes connections on to an address, and cuts the first that has carried so many
// bytes to its client. What went over each is asked for, in the order in which they were made.
func cutting(t *testing.T, to string, after int) (addr string, went func() []*carried) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open, cut := map[net.Conn]bool{}, false
	var list []*carried
	hold := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open[c] = true
	}
	pass := func(down net.Conn) {
		up, err := net.Dial("tcp", to)
		if err != nil {
			_ = down.Close()
			return
		}
		hold(up)
		c := new(carried)
		mu.Lock()
		list = append(list, c)
		mu.Unlock()
		wg.Go(func() {
			_, _ = io.Copy(up, io.TeeReader(down, &c.up)) // ends with the other direction
			_ = up.Close()
		})
		both := io.MultiWriter(down, &c.down)
		_, err = io.CopyN(both, up, int64(after))
		mu.Lock()
		goes := cut || err != nil
		cut = cut || err == nil
		mu.Unlock()
		if goes && err == nil {
			_, _ = io.Copy(both, up)
		}
		_, _ = down.Close(), up.Close()
	}
	wg.Go(func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			hold(down)
			wg.Go(func() { pass(down) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String(), func() []*carried {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
}

// lockedBuffer is what several write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestSWUpdateIsCanceledInTheMiddleOfADownload: by whatever takes the offer back. By force an abort gives up who installs
// too, which is not looked at here: who downloads is told the same.
func TestSWUpdateIsCanceledInTheMiddleOfADownload(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		verb, body string
		is         rollout.State
	}{
		"by a pause":                 {"pause", "", rollout.Queued},
		"by an abort":                {"abort", "", rollout.Canceled},
		"by an abort by force":       {"abort", `{"force":true}`, rollout.Canceled},
		"by a rollout that is newer": {"", "", rollout.Skipped},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			// Half an hour: swupdate asks whether it is to stop between two pieces, on a busy machine late.
			b.app = bytes.Repeat(b.app, 16)
			u := newUpdates(t, "pump-2.0.0.swu", b.swu(nil), 8<<10)
			u.roll()
			b.start(u, settings{version: "1.0.0"})
			had := u.comesTo("swupdate to download", func(a *desk.Action) bool { return a.Device.State == rollout.Downloading }).Device
			if c.verb == "" {
				u.supersede(b, had.Action, c.is)
				return
			}
			u.verb(http.StatusOK, "/r/"+c.verb, c.body)
			a := u.comesTo("swupdate to stop", func(a *desk.Action) bool { return a.Closed == a.Device.Action })
			if a.Device.State != c.is || a.Device.Action != had.Action {
				t.Errorf("the device is %s with action %d, and had %d", a.Device.State, a.Device.Action, had.Action)
			}
			if b.installed() {
				t.Error("the file is there all the same")
			}
		})
	}
}

// supersede has another rollout of the release take the device, which downloads by an action: it begins by the new one.
func (u *updates) supersede(b *bench, old int32, is rollout.State) {
	u.Helper()
	u.verb(http.StatusCreated, "", `{"name":"newer","release":"`+u.release+`","q":"id:`+string(u.device)+`","start":true,"supersede":"replace","plan":{"phases":[{"percent":100}]}}`)
	a := u.comesTo("swupdate to download what is newer", func(a *desk.Action) bool {
		return a.Device.Action != old && a.Device.State == rollout.Downloading
	})
	if log := u.log(old); len(log) == 0 || !strings.Contains(log[len(log)-1], "-> "+is.String()) {
		u.Errorf("of what it had before there is %q", log)
	}
	if a.Device.Failures != 0 || a.Device.Rollout == "r" || b.installed() {
		u.Errorf("it is %+v", a.Device)
	}
}

// verb is an operator's, by the API.
func (u *updates) verb(want int, path, body string) {
	u.Helper()
	headers := map[string]string{"Authorization": "Bearer " + servertest.AdminKey}
	if body != "" {
		headers["Content-Type"] = "application/json"
	}
	if status, _, answer := u.send(http.MethodPost, u.url+"/api/v1/rollouts"+path, headers, body); status != want {
		u.Fatalf("%s is answered %d %s", path, status, answer)
	}
}

func TestSWUpdateRejectsACorruptImageAndSaysWhy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	u := newUpdates(t, "pump-2.0.0.swu", b.swu(func(app []byte) { app[len(app)/2] ^= 1 }), 0)
	u.roll()
	b.start(u, settings{version: "1.0.0"})
	a := u.comesTo("swupdate to fail", func(a *desk.Action) bool { return a.Device.Failing })
	if d := a.Device; d.State != rollout.Queued || d.Reason != rollout.DeviceError || d.Failures != 1 || d.Detail == "" {
		t.Errorf("the device is %s, %s %d times: %q", d.State, d.Reason, d.Failures, d.Detail)
	}
	if b.installed() {
		t.Error("the file is there all the same")
	}
	if log := u.log(a.Device.Action); !strings.HasPrefix(log[len(log)-1], "downloading -> queued: device_error: ") && !strings.HasPrefix(log[len(log)-1], "installing -> queued: device_error: ") {
		t.Errorf("what happened is %q", log)
	}
}

func TestASWUpdateThatForgetsWhatItInstalledIsStopped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	u := newUpdates(t, "pump-2.0.0.swu", b.swu(nil), 0)
	u.roll()
	b.start(u, settings{version: "1.0.0"}) // it never restarts, and installs again at each poll (hawkBit's issues 866 and 1190)
	// The bytes that an action may fetch are three images: the fourth download is refused, and the attempt has failed.
	a := u.comesTo("the loop to end", func(a *desk.Action) bool { return a.Device.Failing })
	again, own := 0, false
	for _, line := range u.log(a.Device.Action) {
		if line == "installing -> downloading" {
			again++
		}
		own = own || strings.Contains(line, "Failed writing received data") // between two processes of its own, now and then on a busy machine
	}
	if again > 3 || again < 3-b.watched && !own { // what one fetched that was started again before it installed, it fetched in vain
		t.Errorf("it began anew %d times: %q", again, u.log(a.Device.Action))
	}
}

// TestASWUpdateThatWaitsForItselfIsStartedAgain holds one with a signal, as its own locks do now and then.
func TestASWUpdateThatWaitsForItselfIsStartedAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.silence = 5 * time.Second
	u := newUpdates(t, "pump-2.0.0.swu", b.swu(nil), 0)
	b.start(u, settings{version: "1.0.0"})
	b.await("it to poll", func() bool { return b.u.served() > 0 })
	held := b.now
	if err := syscall.Kill(-held.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	u.roll()
	b.await("the file to be there", b.installed)
	if b.watched == 0 || b.now == held {
		t.Errorf("it was started again %d times", b.watched)
	}
}
