package e2e

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/store/control/controltest"
)

const (
	outageDevices = 40
	outagePeriod  = 20 * time.Millisecond // between a device's messages
	outageLasts   = 30 * time.Second
	hangLasts     = 8 * time.Second
)

// TestADatabaseThatIsStoppedCostsNoMessage stops PostgreSQL for half a minute while
// devices publish: they go on being acked, and afterwards everything is stored.
func TestADatabaseThatIsStoppedCostsNoMessage(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	outage(t, c.dsn, outageLasts, func() { c.run("down") }, func() { c.run("up") })
}

// TestADatabaseThatHangsCostsNoMessage cuts the connection to the database in the
// nastier way: it stays open and nothing comes through.
func TestADatabaseThatHangsCostsNoMessage(t *testing.T) {
	t.Parallel()
	dsn := controltest.Database(t, timescale(t))
	p := newProxy(t, dsn)
	outage(t, p.dsn, hangLasts, p.hang, p.heal)
}

func outage(t *testing.T, dsn string, lasts time.Duration, begin, end func()) {
	m := serveWatched(t, "--database", dsn)
	devices := m.devices("outage", outageDevices)
	for i, p := range devices {
		p.stamped, p.period = true, outagePeriod
		p.due = time.Now().Add(outagePeriod * time.Duration(i) / outageDevices)
	}
	auditor := m.audit(t)
	s := launch(t.Context(), devices)
	defer s.cancel()
	m.progress(s, 1000)

	begin()
	began, acks := time.Now(), s.acks.Load()
	for time.Since(began) < lasts { // acks go on all the time, not only at first
		m.progress(s, 500)
		pause(t.Context(), 200*time.Millisecond)
	}
	took := time.Since(began)
	l, err := m.scrape(t.Context())
	if err != nil {
		t.Fatalf("scrape during the outage: %v", err)
	}
	during := s.acks.Load() - acks
	t.Logf("%d acks in %s without a database, %d messages queued", during, took.Round(time.Second), l.queued)
	if l.queued < during/2 {
		t.Errorf("only %d messages are queued of %d that were acked during the outage: was it one?", l.queued, during)
	}
	if status := m.readyz(); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %d without a database, want 503", status)
	}
	end()

	m.progress(s, 1000)
	if err := s.finish(); err != nil {
		t.Error(err)
	}
	healed := time.Now()
	m.drained(drainLimit)
	t.Logf("drained %s after the devices stopped", time.Since(healed).Round(time.Millisecond))
	m.ready()
	auditor.verdict(t, 10)
	m.stop()
	readPostgres(t, dsn).check(t, devices, true)
}

// readyz returns the status of /readyz.
func (m *muster) readyz() int {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), requestLimit)
	defer cancel()
	status, _, err := get(ctx, "http://"+m.http+"/readyz", "")
	if err != nil {
		m.t.Fatalf("ask /readyz: %v", err)
	}
	return status
}

// cluster is a PostgreSQL of the test's own, which it may stop.
type cluster struct {
	t      *testing.T
	script string
	env    []string
	dsn    string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	if !havePostgres() {
		missing(t, "there is no PostgreSQL server on this machine (scripts/setup-test.sh installs one)")
	}
	script, err := filepath.Abs("../scripts/postgres-up.sh")
	if err != nil {
		t.Fatalf("find postgres-up.sh: %v", err)
	}
	home := t.TempDir()
	// Run by root, the script gives the cluster to another user, who has to get in.
	if err := os.Chmod(filepath.Dir(home), 0o755); err != nil {
		t.Fatalf("open the way to the cluster: %v", err)
	}
	_, port, err := net.SplitHostPort(freeAddr(t))
	if err != nil {
		t.Fatalf("find a port: %v", err)
	}
	c := &cluster{t: t, script: script, env: append(os.Environ(), "PG_HOME="+home, "PG_PORT="+port)}
	t.Cleanup(func() { c.run("down") })
	c.dsn = c.run("up")
	return c
}

func havePostgres() bool {
	if _, err := exec.LookPath("pg_ctl"); err == nil {
		return true
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/pg_ctl")
	return err == nil && len(found) > 0
}

// run runs the script and returns what it prints: the DSN, after up.
func (c *cluster) run(verb string) string {
	c.t.Helper()
	r := execute(c.t, 2*time.Minute, func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "sh", c.script, verb)
		cmd.Env = c.env
		return cmd
	})
	if r.code != 0 {
		c.t.Fatalf("postgres-up.sh %s: %s", verb, r)
	}
	return strings.TrimSpace(r.stdout)
}

// proxy stands between the server and its database and can let both hang.
type proxy struct {
	dsn    string
	target string
	l      net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex
	open  chan struct{} // closed while bytes pass
	conns map[net.Conn]bool
	over  bool
}

func newProxy(t *testing.T, dsn string) *proxy {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal("the database's URL cannot be parsed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	p := &proxy{target: u.Host, l: l, open: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.open)
	if u.Port() == "" {
		p.target = net.JoinHostPort(u.Hostname(), strconv.Itoa(5432))
	}
	u.Host = l.Addr().String()
	p.dsn = u.String()
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) close() {
	p.heal()
	p.l.Close()
	p.mu.Lock()
	p.over = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// hang makes all bytes wait, those of new connections too.
func (p *proxy) hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

// heal lets them pass again.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

func (p *proxy) gate() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

func (p *proxy) accept() {
	for {
		from, err := p.l.Accept()
		if err != nil {
			return
		}
		to, err := net.DialTimeout("tcp", p.target, 5*time.Second)
		if err != nil {
			from.Close()
			continue
		}
		if !p.keep(from, to) {
			return
		}
		p.wg.Go(func() { p.pipe(from, to) })
		p.wg.Go(func() { p.pipe(to, from) })
	}
}

// keep registers a pair for close; false says that the proxy is closed.
func (p *proxy) keep(a, b net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		a.Close()
		b.Close()
		return false
	}
	p.conns[a], p.conns[b] = true, true
	return true
}

func (p *proxy) pipe(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		<-p.gate()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
