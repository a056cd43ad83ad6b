package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"

	"muster/server"
	"muster/server/servertest"
)

// rule is one of rules.yml.
type rule struct{ record, alert, expr, runbook, severity string }

func rules(t *testing.T) (out []rule) {
	t.Helper()
	v, err := parseYAML(read(t, "rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range at(t, v, "groups").([]any) {
		for _, one := range at(t, g, "rules").([]any) {
			r := rule{expr: at(t, one, "expr").(string)}
			r.record, _ = one.(map[string]any)["record"].(string)
			if r.record == "" {
				r.alert, r.runbook, r.severity = at(t, one, "alert").(string), at(t, one, "annotations", "runbook").(string), at(t, one, "labels", "severity").(string)
				if at(t, one, "annotations", "summary") == "" || at(t, one, "for") == "" {
					t.Errorf("%s has no summary, or does not say for how long", r.alert)
				}
			}
			out = append(out, r)
		}
	}
	return out
}

// board is what is looked at of the Grafana board.
type board struct {
	UID    string
	Panels []struct {
		ID          int
		Type, Title string
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct{ RefID, Expr string }
	}
}

func grafana(t *testing.T) (b board) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "grafana/muster.json")), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// expressions are all that are asked of Prometheus, by where they stand.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range rules(t) {
		out[r.record+r.alert] = r.expr
	}
	for _, p := range grafana(t).Panels {
		for _, q := range p.Targets {
			out[p.Title+" "+q.RefID] = q.Expr
		}
	}
	return out
}

// scrape returns the labels that each metric of a running server has. The server has lived a
// little: metrics with labels are there once something was counted.
func scrape(t *testing.T) map[string]map[string]bool {
	t.Helper()
	s := servertest.Start(t, func(c *server.Config) {
		c.WebhookAllow, c.SMTP = []string{"127.0.0.0/8"}, "smtp://127.0.0.1:1?from=muster@example.org"
	})
	metrics := map[string]map[string]bool{"up": {"job": true}} // Prometheus' own
	until := func(name string) {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for range 150 { // what waits in the outbox is counted every ten seconds
			note(metrics, text(t, s))
			if metrics[name] != nil {
				return
			}
			<-tick.C
		}
		t.Errorf("%s is not counted", name)
	}
	gone := live(t, s)
	until("muster_mqtt_dropped_total") // while it is connected: who is gone is told nothing
	gone()
	until("muster_mqtt_disconnects_total")
	until("muster_deliveries")
	return metrics
}

// text is what a scrape answers.
func text(t *testing.T, s *server.Server) string {
	t.Helper()
	res, err := http.Get("http://" + s.HTTPAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// note adds the metrics of a scrape with their labels.
func note(metrics map[string]map[string]bool, text string) {
	label := regexp.MustCompile(`([a-z_]+)="`)
	for line := range strings.Lines(text) {
		name, labels, _ := strings.Cut(strings.Fields(line)[0], "{")
		if strings.HasPrefix(name, "#") {
			continue
		}
		if metrics[name] == nil {
			metrics[name] = map[string]bool{"job": true, "instance": true} // what a scrape adds
		}
		for _, m := range label.FindAllStringSubmatch(labels, -1) {
			metrics[name][m[1]] = true
		}
	}
}

// live has a delivery wait, a client refused, and a message dropped to another, who goes when
// the func it returns is called.
func live(t *testing.T, s *server.Server) func() {
	t.Helper()
	post(t, s, "/api/v1/webhooks", `{"url":"http://127.0.0.1:1/","types":["*"]}`)
	token, _ := at(t, post(t, s, "/api/v1/devices", `{"id":"d"}`), "credential", "token").(string)
	if dial(t, s, "nobodys-token", 0) != nil {
		t.Fatal("a token that nobody has is taken")
	}
	c := dial(t, s, token, 64)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "devices/me/errors", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	// It is to be told why its message is rejected, in more bytes than it takes.
	_, _ = c.Publish(ctx, &paho5.Publish{Topic: "devices/me/telemetry", QoS: 1, Payload: []byte("{{{")})
	return func() {
		if err := c.Disconnect(&paho5.Disconnect{}); err != nil {
			t.Fatal(err)
		}
	}
}

// dial returns nil when the server refuses.
func dial(t *testing.T, s *server.Server, user string, most uint32) *paho5.Client {
	t.Helper()
	nc, err := net.Dial("tcp", s.BrokerAddr())
	if err != nil {
		t.Fatal(err)
	}
	c := paho5.NewClient(paho5.ClientConfig{Conn: nc})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	connect := &paho5.Connect{ClientID: "d", KeepAlive: 30, CleanStart: true, Username: user, UsernameFlag: true}
	if most > 0 {
		connect.Properties = &paho5.ConnectProperties{MaximumPacketSize: &most}
	}
	if ack, err := c.Connect(ctx, connect); err != nil || ack.ReasonCode != 0 {
		return nil
	}
	return c
}

func post(t *testing.T, s *server.Server, path, body string) (out map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTPAddr()+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil || res.StatusCode > 299 {
		t.Fatalf("%s: %d %v", path, res.StatusCode, err)
	}
	return out
}

func TestEveryMetricThatIsAskedForIsThere(t *testing.T) {
	metrics := scrape(t)
	for _, r := range rules(t) {
		if r.record != "" {
			metrics[r.record] = map[string]bool{"job": true, "instance": true, "channel": true}
		}
	}
	selector := regexp.MustCompile(`\b((?:muster|go|process)[_:][a-z0-9_:]+|up\b)(?:\{([^}]*)\})?`)
	matcher := regexp.MustCompile(`([a-z_]+)(?:=~|!=|!~|=)'`)
	for where, expr := range expressions(t) {
		found := selector.FindAllStringSubmatch(expr, -1)
		if len(found) == 0 {
			t.Errorf("%s asks for no metric: %s", where, expr)
		}
		for _, m := range found {
			labels := metrics[m[1]]
			if labels == nil {
				t.Errorf("%s asks for %s, which is not there", where, m[1])
				continue
			}
			for _, one := range matcher.FindAllStringSubmatch(m[2], -1) {
				if !labels[one[1]] {
					t.Errorf("%s asks for the label %s of %s, which has %v", where, one[1], m[1], slices.Sorted(maps.Keys(labels)))
				}
			}
		}
	}
}

// wellFormed says what is wrong with an expression's form: its parentheses, its texts, its
// ranges, and what it calls. It knows the part of PromQL that is used here.
func wellFormed(expr string) error {
	bare := regexp.MustCompile(`'[^']*'`).ReplaceAllString(expr, "Q")
	if strings.ContainsAny(bare, `'"`) {
		return fmt.Errorf("a text does not end")
	}
	var open []rune
	closes := map[rune]rune{')': '(', '}': '{', ']': '['}
	for _, c := range bare {
		switch c {
		case '(', '{', '[':
			open = append(open, c)
		case ')', '}', ']':
			if len(open) == 0 || open[len(open)-1] != closes[c] {
				return fmt.Errorf("a %c too many", c)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("%c is not closed", open[len(open)-1])
	}
	for _, part := range []struct{ find, want, what string }{
		{`\{([^}]*)\}`, `^[a-z_]+(=|!=|=~|!~)Q(,[a-z_]+(=|!=|=~|!~)Q)*$`, "selector"},
		{`\[([^\]]*)\]`, `^([0-9]+[smhd]|\$__rate_interval)$`, "range"},
		{`([a-z_0-9]+) ?\(`, `^(rate|increase|sum|by|histogram_quantile)$`, "function that is used here"},
		{`\b(?:rate|increase)\(([^()]*)\)`, `\]$`, "argument with a range"},
	} {
		for _, m := range regexp.MustCompile(part.find).FindAllStringSubmatch(bare, -1) {
			if !regexp.MustCompile(part.want).MatchString(m[1]) {
				return fmt.Errorf("%q is no %s", m[1], part.what)
			}
		}
	}
	if regexp.MustCompile(`([-+*/<>=]|\bor)\s*$|^\s*[*/<>=]|[*/<>]\s+[*/<>=]`).MatchString(bare) {
		return fmt.Errorf("an operator has nothing beside it")
	}
	return nil
}

func TestEveryExpressionIsWellFormed(t *testing.T) {
	all := expressions(t)
	if len(all) < 60 {
		t.Errorf("only %d expressions were found", len(all))
	}
	for where, expr := range all {
		if err := wellFormed(expr); err != nil {
			t.Errorf("%s: %v: %s", where, err, expr)
		}
	}
	for name, expr := range map[string]string{
		"a parenthesis": "sum(rate(x[5m])", "a bracket": "rate(x[5m)", "another": "rate(x)]", "a text": "x{a='b}", "a selector": "x{a=b}", "a range": "rate(x[5])",
		"no range": "rate(x{a='b'})", "a function": "summ(x)", "an operator": "x >", "two": "x > < 3",
	} {
		if wellFormed(expr) == nil {
			t.Errorf("%s: %s passes", name, expr)
		}
	}
}

func TestEveryAlertHasItsSectionInTheRunbookAndBack(t *testing.T) {
	page := read(t, "../docs/operations.md")
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (Muster[A-Za-z]+)$`).FindAllStringSubmatch(page, -1) {
		sections[m[1]] = true
	}
	for _, r := range rules(t) {
		if r.record != "" {
			continue
		}
		if r.runbook != "docs/operations.md#"+strings.ToLower(r.alert) || !sections[r.alert] {
			t.Errorf("%s leads to %s, which is not there", r.alert, r.runbook)
		}
		if r.severity != "critical" && r.severity != "warning" {
			t.Errorf("%s has the severity %s", r.alert, r.severity)
		}
		if !strings.Contains(page, "`"+r.expr+"`") {
			t.Errorf("the section of %s has another expression", r.alert)
		}
		delete(sections, r.alert)
	}
	for left := range sections {
		t.Errorf("%s has a section and is no alert", left)
	}
}

func TestTheBoardHasItsRowsAndNoPanelOverAnother(t *testing.T) {
	b := grafana(t)
	var rows []string
	used, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range b.Panels {
		if ids[p.ID] {
			t.Errorf("%s has the id of another", p.Title)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
		} else if len(p.Targets) == 0 {
			t.Errorf("%s asks for nothing", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := used[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies over %s", p.Title, other)
				}
				used[[2]int{x, y}] = p.Title
			}
		}
	}
	if !slices.Equal(rows, []string{"Broker", "Ingest", "Store", "Notifications", "Live", "System"}) || b.UID != "muster" {
		t.Errorf("the board %s has %v", b.UID, rows)
	}
}

func TestGrafanaFindsItsBoardAndItsPrometheus(t *testing.T) {
	source, err := parseYAML(read(t, "grafana/provisioning/datasources/muster.yml"))
	if err != nil {
		t.Fatal(err)
	}
	first := at(t, source, "datasources").([]any)[0]
	if uid := at(t, first, "uid").(string); at(t, first, "url") != "http://prometheus:9090" || !strings.Contains(read(t, "grafana/muster.json"), `"value": "`+uid+`"`) {
		t.Errorf("%v", first)
	}
	boards, err := parseYAML(read(t, "grafana/provisioning/dashboards/muster.yml"))
	if err != nil {
		t.Fatal(err)
	}
	path := at(t, at(t, boards, "providers").([]any)[0], "options", "path").(string)
	if !strings.Contains(read(t, "compose.yaml"), "./grafana/muster.json:"+path+"/muster.json:ro") || !strings.Contains(read(t, "prometheus.yml"), "- rules.yml") {
		t.Errorf("the board is not where Grafana looks: %s", path)
	}
}
