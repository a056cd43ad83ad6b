//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	fleetSize     = 100_000
	fleetGateways = 250
	firstPages    = 40 // requests of each list
	settleLimit   = 3 * time.Minute
	groupSize     = 10_000
)

// BenchmarkFleet makes 100,000 devices behind 250 gateways and measures what
// operators do with them: the import of the list, what a device costs in memory with
// ten latest values, how presence settles after a restart, and a desired change for a
// group.
func BenchmarkFleet(b *testing.B) {
	for range b.N {
		onBoth(b, fleet)
	}
	b.ReportMetric(0, "ns/op")
}

func fleet(b *testing.B, name, database string) {
	b.Helper()
	s, _ := startMuster(b, database, 0)
	fmt.Printf("\n%s: %d devices behind %d gateways\n", name, fleetSize, fleetGateways)
	empty := s.memory()
	gateways, took := s.importFleet()
	fmt.Printf("  %-44s %10.1f s   goal < 60\n", "import as CSV, over HTTP", took.Seconds())
	s.again()
	bare := s.memory()
	conns := s.gateways(gateways)
	s.sayOnce(conns)
	s.await("all values to arrive", settleLimit, func() bool {
		return s.metric("muster_ingest_queued") == 0 && s.count("has:connection") == fleetSize+fleetGateways
	})
	for _, c := range conns {
		c.Close()
	}
	s.again()
	conns = s.gateways(gateways)
	s.sayOnce(conns)
	s.await("all values to be stored", settleLimit, func() bool {
		return s.metric("muster_ingest_received_total") == fleetSize && s.metric("muster_ingest_queued") == 0
	})
	burst := s.memory()
	per := func(n int64) float64 { return float64(n-empty) / fleetSize }
	least, most := s.memoryAtRest()
	fmt.Printf("  %-44s %10.0f B   after a restart, resident\n", "a device in memory, without values", per(bare))
	fmt.Printf("  %-44s %10.0f B   at the most, %.0f at the least, while at rest; goal <= 2048; at the end of a burst %.0f\n",
		"a device in memory, with ten values", per(most), per(least), per(burst))
	s.presenceAfterRestart(conns, gateways)
	s.desired()
}

// BenchmarkFirstPages measures the first pages of lists of 100,000 devices, filtered and sorted,
// over HTTP, while what came last is being saved.
func BenchmarkFirstPages(b *testing.B) {
	for range b.N {
		onBoth(b, func(b *testing.B, name, database string) {
			s, _ := startMuster(b, database, 0)
			fmt.Printf("\n%s: lists of %d devices with ten values each, %d requests of each\n", name, fleetSize, firstPages)
			logins, _ := s.importFleet()
			s.sayOnce(s.gateways(logins))
			s.await("all values to be stored", settleLimit, func() bool {
				return s.metric("muster_ingest_received_total") == fleetSize && s.metric("muster_ingest_queued") == 0
			})
			s.firstPages(name)
		})
	}
	b.ReportMetric(0, "ns/op")
}

// memoryAtRest returns the least and the most that is resident within 20 s, 40 s after
// whatever was done.
func (s *server) memoryAtRest() (least, most int64) {
	s.b.Helper()
	began := time.Now()
	s.await("the server to come to rest", 2*time.Minute, func() bool { return time.Since(began) > 40*time.Second })
	least, most = s.memory(), 0
	s.await("its memory to be looked at", 2*time.Minute, func() bool {
		m := s.memory()
		least, most = min(least, m), max(most, m)
		return time.Since(began) > 60*time.Second
	})
	return least, most
}

// importFleet makes the devices and returns the logins of their gateways.
func (s *server) importFleet() ([]login, time.Duration) {
	s.b.Helper()
	for path, body := range map[string]any{
		"/api/v1/groups/ten-k": map[string]string{}, "/api/v1/profiles/meter": map[string]string{},
	} {
		if status, err := s.ask(http.MethodPut, path, body, nil); err != nil || status != http.StatusOK {
			s.b.Fatalf("put %s: status %d, %v", path, status, err)
		}
	}
	var list strings.Builder
	list.WriteString("id,name,profile,parent,tags,groups,credential\n")
	for i := range fleetGateways {
		fmt.Fprintf(&list, "gw-%03d,Gateway %d,,,,,token\n", i, i)
	}
	for i := range fleetSize {
		group := ""
		if i < groupSize {
			group = "ten-k"
		}
		fmt.Fprintf(&list, "dev-%06d,Meter %d,meter,gw-%03d,site=s%d;row=%d,%s,none\n", i, i*7919%fleetSize, i%fleetGateways, i%50, i%7, group)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.http+"/api/v1/devices:import", strings.NewReader(list.String()))
	if err != nil {
		s.b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "text/csv")
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		s.b.Fatal(err)
	}
	defer resp.Body.Close()
	logins := make([]login, 0, fleetGateways)
	created := 0
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var line struct {
			Made *struct {
				ID         string
				Credential *struct{ Token string }
			}
			Report *struct{ Created int }
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			s.b.Fatal(err)
		}
		if line.Made != nil && line.Made.Credential != nil {
			logins = append(logins, login{id: line.Made.ID, user: line.Made.Credential.Token})
		}
		if line.Report != nil {
			created = line.Report.Created
		}
	}
	if lines.Err() != nil || created != fleetSize+fleetGateways || len(logins) != fleetGateways {
		s.b.Fatalf("the import made %d devices, %d with a token: %v", created, len(logins), lines.Err())
	}
	return logins, time.Since(began)
}

// gateways connects them all.
func (s *server) gateways(logins []login) []*conn {
	s.b.Helper()
	l := &load{addr: s.mqtt, window: 1000}
	conns := make([]*conn, len(logins))
	for i, who := range logins {
		c, err := l.connect(s.b.Context(), i, who)
		if err != nil {
			s.b.Fatalf("gateway %s: %v", who.id, err)
		}
		s.b.Cleanup(func() { c.Close() })
		conns[i] = c
	}
	return conns
}

// sayOnce has each gateway publish ten values for each of its devices, at QoS 0.
func (s *server) sayOnce(conns []*conn) {
	s.b.Helper()
	const values = `{"temperature":21.5,"humidity":40.25,"pressure":1013.5,"battery":%d.5,"voltage":3.25,"current":0.5,"power":12.5,"speed":3.5,"level":77.5,"flow":1.25}`
	for i := range fleetSize {
		c := conns[i%fleetGateways]
		c.out = appendPublish(c.out, fmt.Sprintf("devices/dev-%06d/telemetry", i), fmt.Appendf(nil, values, i%100))
		if len(c.out) > 32<<10 || i >= fleetSize-fleetGateways {
			if err := c.SetDeadline(time.Now().Add(ackLimit)); err != nil {
				s.b.Fatal(err)
			}
			if err := c.flush(); err != nil {
				s.b.Fatalf("gateway %d: %v", c.index, err)
			}
		}
	}
}

// appendPublish appends a PUBLISH of QoS 0.
func appendPublish(b []byte, topic string, payload []byte) []byte {
	n := 2 + len(topic) + len(payload)
	b = append(b, 0x30)
	for n >= 0x80 {
		b, n = append(b, byte(n)|0x80), n>>7
	}
	return append(appendString(append(b, byte(n)), topic), payload...)
}

// count returns how many devices match a query.
func (s *server) count(q string) int {
	s.b.Helper()
	var page struct{ Total int }
	path := "/api/v1/devices?limit=1&total=true&q=" + url.QueryEscape(q)
	if status, err := s.ask(http.MethodGet, path, nil, &page); err != nil || status != http.StatusOK {
		s.b.Fatalf("count %s: status %d, %v", q, status, err)
	}
	return page.Total
}

// firstPages prints the 95th percentile of lists.
func (s *server) firstPages(name string) {
	s.b.Helper()
	goal := 100.0
	if name != "sqlite" {
		goal = 150
	}
	for _, l := range []struct{ what, q, sort string }{
		{"all, by id", "", ""},
		{"all, by name", "", "name"},
		{"a tag and a value, largest value first", "tag:site=s7 v.battery>50", "-v.battery"},
		{"online, last seen first", "status:online", "-seen"},
		{"a word of the name, by name", "999", "name"},
		{"a group and a row", "group:ten-k tag:row=3", "name"},
	} {
		var took []float64
		cpu := s.cpu()
		for range firstPages {
			began := time.Now()
			path := "/api/v1/devices?total=true&q=" + url.QueryEscape(l.q) + "&sort=" + url.QueryEscape(l.sort)
			if status, err := s.ask(http.MethodGet, path, nil, nil); err != nil || status != http.StatusOK {
				s.b.Fatalf("list %s: status %d, %v", l.what, status, err)
			}
			took = append(took, float64(time.Since(began).Microseconds())/1000)
		}
		slices.Sort(took)
		p95 := took[len(took)*95/100]
		fmt.Printf("  %-44s %10.1f ms   p95, median %.1f, of the processors %.1f; %s\n", "first page: "+l.what, p95, median(took), ms(s.cpu()-cpu)/firstPages, atMost(p95, goal))
	}
}

// presenceAfterRestart restarts the server under all gateways and looks for devices
// that are wrongly said to be offline until all are back.
func (s *server) presenceAfterRestart(conns []*conn, logins []login) {
	s.b.Helper()
	s.kill()
	for _, c := range conns {
		c.Close()
	}
	s.start()
	began := time.Now()
	conns = s.gateways(logins)
	s.sayOnce(conns)
	wrong := 0
	s.await("presence to settle", settleLimit, func() bool {
		wrong = max(wrong, s.count("status:offline"))
		return s.count("has:connection") == fleetSize+fleetGateways // online or, for saying no more, quiet
	})
	settled := time.Since(began)
	// What was unknown for too long would become offline now.
	over := time.Now().Add(40 * time.Second)
	s.await("the wait for those who do not come", time.Minute, func() bool {
		wrong = max(wrong, s.count("status:offline"))
		return time.Now().After(over)
	})
	fmt.Printf("  %-44s %10.1f s   falsely offline: %d, goal 0\n", "all there again after kill -9", settled.Seconds(), wrong)
}

// desired connects a group of devices that each listen to their own desired document
// and measures until the last has a change of the group's.
func (s *server) desired() {
	s.b.Helper()
	n := min(groupSize, connections(s.b))
	s.kill()
	s.start()
	logins := s.devices(n)
	ids := make([]string, 0, 1000)
	for i, who := range logins {
		if ids = append(ids, who.id); len(ids) == 1000 || i == n-1 {
			body := map[string]any{"ids": ids, "add_groups": []string{"ten-k"}}
			if status, err := s.ask(http.MethodPost, "/api/v1/devices:update", body, nil); err != nil || status != http.StatusOK {
				s.b.Fatalf("put devices into the group: status %d, %v", status, err)
			}
			ids = ids[:0]
		}
	}
	all := make([]*member, n)
	for i, who := range logins {
		all[i] = &member{login: who, version: 4, clean: true, filters: []string{"devices/" + who.id + "/desired"}, qos: 1, keepAlive: 300}
	}
	a := &audience{crowd: newCrowd(s.b, s.mqtt, all), b: s.b, ended: make(chan error, 1)}
	a.keep = true
	a.connectAll()
	if err := a.run(connectLimit, a.all); err != nil {
		s.b.Fatal(err)
	}
	a.keep = false
	go func() { a.ended <- a.run(time.Hour, a.over.Load) }() // end waits for it
	before := a.deliveries.Load()
	began := time.Now()
	status, err := s.patch("/api/v1/groups/ten-k/desired", `{"interval":60,"mode":"eco"}`)
	if err != nil || status != http.StatusOK {
		s.b.Fatalf("change the group's desired document: status %d, %v", status, err)
	}
	answered := time.Since(began)
	a.settle(before + int64(n))
	took := time.Since(began)
	got := a.deliveries.Load() - before
	a.end()
	fmt.Printf("  desired change of a group of %d, %d connected %6.2f s   until the last has it (%d), answered after %.2f s, goal < 2\n", s.groupOf(), n, took.Seconds(), got, answered.Seconds())
}

func (s *server) groupOf() int { return s.count("group:ten-k") }

// patch sends a JSON merge patch.
func (s *server) patch(path, body string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, "http://"+s.http+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/merge-patch+json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
