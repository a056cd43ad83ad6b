package server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"

	"muster/api"
	"muster/server"
	"muster/server/servertest"
)

// BenchmarkGetDevice is one client on one connection that does nothing but write a request and read its answer.
func BenchmarkGetDevice(b *testing.B) {
	s := servertest.Start(b, func(c *server.Config) { c.Web.Limits = api.Limits{Rate: 1e6, Burst: 1e6} })
	body := bytes.NewReader([]byte(`{"id":"d1","name":"pump","tags":{"site":"north","line":"3"},"notes":"a note"}`))
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+s.HTTPAddr()+"/api/v1/devices", body)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || res.StatusCode != http.StatusCreated {
		b.Fatal(res, err)
	}
	_ = res.Body.Close()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	c, err := (&net.Dialer{}).DialContext(context.WithoutCancel(b.Context()), "tcp", s.HTTPAddr())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ask := []byte("GET /api/v1/devices/d1 HTTP/1.1\r\nHost: muster\r\nAuthorization: Bearer " + servertest.AdminKey + "\r\n\r\n")
	answers := bufio.NewReader(c)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(ask); err != nil {
			b.Fatal(err)
		}
		if err := skipAnswer(answers); err != nil {
			b.Fatal(err)
		}
	}
}

// skipAnswer reads an answer with a Content-Length and makes nothing of it, so that what is measured is the server.
func skipAnswer(r *bufio.Reader) error {
	length := 0
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
			return fmt.Errorf("the answer is %s", line)
		}
		if len(line) == 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, d := range bytes.TrimSpace(value) {
				length = 10*length + int(d-'0')
			}
		}
	}
	_, err := r.Discard(length)
	return err
}
