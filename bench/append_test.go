package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// BenchmarkAppend runs the stores' own benchmarks and prints what share of the bare
// database's rate the store reaches.
func BenchmarkAppend(b *testing.B) {
	for range b.N {
		if _, err := program(); err != nil { // prints the machine
			b.Fatal(err)
		}
		fmt.Printf("\nappend, million points/s\n%-28s %10s %10s %8s\n", "", "store", "raw", "ratio")
		compare(b, "sqlite", "./store/sqlite", "BenchmarkAppend", "BenchmarkRawInsert", "")
		for _, e := range []struct{ name, env string }{{"timescaledb", "MUSTER_TEST_TIMESCALE"}, {"plain postgresql", "MUSTER_TEST_POSTGRES"}} {
			if os.Getenv(e.env) == "" {
				fmt.Printf("%s: left out, %s is not set\n", e.name, e.env)
				continue
			}
			compare(b, e.name, "./store/postgres", "BenchmarkAppend", "BenchmarkRawCopy", e.name)
		}
		fmt.Println("goal: ratio >= 0.8")
	}
	b.ReportMetric(0, "ns/op")
}

func compare(b *testing.B, name, pkg, ours, raw, sub string) {
	b.Helper()
	a, r := points(b, pkg, ours, sub), points(b, pkg, raw, sub)
	fmt.Printf("%-28s %10.2f %10.2f %8.2f\n", name, a/1e6, r/1e6, a/r)
}

// points runs one benchmark of another package and returns its points/s.
func points(b *testing.B, pkg, name, sub string) float64 {
	b.Helper()
	pattern := "^" + name + "$"
	if sub != "" {
		pattern += "/^" + regexp.MustCompile(`\s`).ReplaceAllString(sub, "_") + "$"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchtime", "2s", pkg)
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%s of %s: %v\n%s", name, pkg, err, out)
	}
	m := regexp.MustCompile(`([0-9.e+]+) points/s`).FindSubmatch(out)
	if m == nil {
		b.Fatalf("%s of %s gives no points/s:\n%s", name, pkg, out)
	}
	f, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatalf("%s of %s: %v", name, pkg, err)
	}
	return f
}
