package bench

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"muster/store/postgres/pgtest"
)

const (
	tenKeys = `{"ts":1700000000000000,"values":{"temperature":77.77,"humidity":77.77,"pressure":77.77,"battery":77.77,` +
		`"voltage":77.77,"current":77.77,"power":77.77,"speed":77.77,"level":77.77,"flow":77.77}}`
	rowClients = 100
	rowsEach   = 250_000
)

// BenchmarkRows measures how fast messages of ten keys become committed rows, from
// the first PUBLISH until the ledger has them all stored, and what processor time
// the server takes for it.
func BenchmarkRows(b *testing.B) {
	for range b.N {
		fmt.Printf("\nMQTT to committed row: %d rows of 10 keys, %d clients x window 20\n", rowsEach, rowClients)
		fmt.Printf("%-36s %10s %10s %22s\n", "", "acks/s", "rows/s", "CPU-s per 100k rows")
		rows(b, "sqlite", "", 1)
		rows(b, "sqlite, arrays of 10", "", 10)
		if dsn := os.Getenv("MUSTER_TEST_TIMESCALE"); dsn != "" {
			fsync := setting(b, dsn, "fsync")
			rows(b, "timescaledb (fsync "+fsync+")", pgtest.Empty(b, dsn), 1)
			rows(b, "timescaledb (fsync "+fsync+"), arrays of 10", pgtest.Empty(b, dsn), 10)
		} else if os.Getenv("CI") == "true" {
			b.Fatal("MUSTER_TEST_TIMESCALE is not set, and CI skips nothing")
		} else {
			fmt.Println("timescaledb: left out, MUSTER_TEST_TIMESCALE is not set (scripts/timescale-up.sh prints a DSN)")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// rows runs one engine with messages that carry per readings each.
func rows(b *testing.B, name, database string, per int) {
	b.Helper()
	s, logins := startMuster(b, database, rowClients)
	payload := tenKeys
	if per > 1 {
		payload = "[" + strings.Repeat(tenKeys+",", per-1) + tenKeys + "]"
	}
	l := load{addr: s.mqtt, logins: logins, window: 20, limit: rowsEach / per / rowClients, payload: payload}
	want := int64(l.limit * len(logins) * per)
	cpu := s.cpu()
	var began time.Time
	if err := l.run(context.Background(), func() { began = time.Now() }); err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	acked := time.Since(began)
	s.await("all rows to be stored", drainLimit, func() bool { return s.metric("muster_ingest_stored_total") >= want })
	took := time.Since(began)
	if got := s.metric("muster_ingest_stored_total"); got != want {
		b.Errorf("%s: %d rows are stored, %d were sent", name, got, want)
	}
	each := (s.cpu() - cpu).Seconds() / float64(want) * 100_000
	perSecond := float64(want) / took.Seconds()
	fmt.Printf("%-36s %10.0f %10.0f %22.2f\n", name, float64(want)/float64(per)/acked.Seconds(), perSecond, each)
	word := strings.NewReplacer(" ", "-", ",", "", "(", "", ")", "").Replace(name)
	b.ReportMetric(perSecond, word+"-rows/s")
}

func setting(b *testing.B, server, name string) string {
	b.Helper()
	var value string
	ask(b, server, "SHOW "+name, &value)
	return value
}

// ask runs one statement, whose one value goes to out unless that is nil.
func ask(b *testing.B, server, statement string, out *string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, server)
	if err != nil {
		b.Fatalf("connect to the database: %v", err)
	}
	defer func() { _ = c.Close(ctx) }()
	if out != nil {
		err = c.QueryRow(ctx, statement).Scan(out)
	} else {
		_, err = c.Exec(ctx, statement)
	}
	if err != nil {
		b.Fatalf("%s: %v", statement, err)
	}
}
