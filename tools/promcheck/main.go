// Command promcheck reads every PromQL expression of deploy/ with Prometheus' own parser: the
// rules, and the panels of the Grafana board. Run it from its directory:
//
//	go run . -root ../..
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	root := flag.String("root", "..", "the repository")
	flag.Parse()
	n, err := run(*root)
	if err != nil {
		fmt.Fprintln(os.Stderr, "promcheck:", err)
		os.Exit(1)
	}
	fmt.Printf("promcheck: %d expressions are PromQL\n", n)
}

// run returns how many expressions there are, and what is wrong with those that are none.
func run(root string) (int, error) {
	all, err := expressions(root)
	if err != nil {
		return 0, err
	}
	var faults []error
	p := parser.NewParser(parser.Options{})
	for _, e := range all {
		if _, err := p.ParseExpr(e); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", e, err))
		}
	}
	return len(all), errors.Join(faults...)
}

// rule finds the expressions of rules.yml, each of which is one text in double quotes.
var rule = regexp.MustCompile(`(?m)^\s+expr: (".*")$`)

func expressions(root string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(root, "deploy", "rules.yml"))
	if err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	var all []string
	for _, m := range rule.FindAllSubmatch(text, -1) {
		var e string
		if err := json.Unmarshal(m[1], &e); err != nil {
			return nil, fmt.Errorf("read the rule %s: %w", m[1], err)
		}
		all = append(all, e)
	}
	if want := strings.Count(string(text), " expr:"); len(all) == 0 || len(all) != want {
		return nil, fmt.Errorf("%d of the %d rules were understood", len(all), want)
	}
	text, err = os.ReadFile(filepath.Join(root, "deploy", "grafana", "muster.json"))
	if err != nil {
		return nil, fmt.Errorf("read the board: %w", err)
	}
	var board any
	if err := json.Unmarshal(text, &board); err != nil {
		return nil, fmt.Errorf("read the board: %w", err)
	}
	return append(all, ofBoard(board)...), nil
}

// ofBoard returns the texts that are called expr, anywhere in v, as Grafana sends them.
func ofBoard(v any) (out []string) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			out = append(out, ofBoard(one)...)
		}
	case map[string]any:
		for key, one := range v {
			if text, ok := one.(string); ok && key == "expr" {
				out = append(out, strings.ReplaceAll(text, "$__rate_interval", "5m"))
				continue
			}
			out = append(out, ofBoard(one)...)
		}
	}
	return out
}
