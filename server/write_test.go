package server_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/server/servertest"
)

// BenchmarkWriteLines takes 10,000 lines of ten fields for 100 devices over HTTP, gzip as
// Telegraf sends them, to the fsynced log. Its allocations are the client's too.
func BenchmarkWriteLines(b *testing.B) {
	const lines, devices = 10_000, 100
	s := servertest.Start(b)
	body := func(round int) []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		at := time.Now().Add(-time.Hour).UnixNano() + int64(round)*1000
		for i := range lines {
			_, _ = fmt.Fprintf(z, "env,host=d%d,room=a temperature=21.5,humidity=40,pressure=1013.2,battery=87i,rssi=-71i,a=1,b=%d.5,c=3,d=4.25,e=t %d\n",
				i%devices, i, at+int64(i)*1_000_000)
		}
		if err := z.Close(); err != nil {
			b.Fatal(err)
		}
		return out.Bytes()
	}
	post := func(query string, text []byte) {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.URL()+"/api/v2/write"+query, bytes.NewReader(text))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Encoding", "gzip")
		req.Header.Set("Authorization", "Token "+servertest.AdminKey)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusNoContent {
			b.Fatalf("it answers %d (%v)", res.StatusCode, err)
		}
	}
	var first strings.Builder
	z := gzip.NewWriter(&first)
	for i := range devices {
		_, _ = fmt.Fprintf(z, "m,host=d%d f=1\n", i)
	}
	if err := z.Close(); err != nil {
		b.Fatal(err)
	}
	post("?create=true", []byte(first.String()))
	bodies := make([][]byte, b.N)
	for i := range bodies {
		bodies[i] = body(i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, text := range bodies {
		post("", text)
	}
	b.ReportMetric(float64(b.N)*lines/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(0, "ns/op")
}
