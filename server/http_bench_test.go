package server_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"muster/server/servertest"
)

// BenchmarkGetDevice is one client on one connection that does nothing but write a request and read its answer.
func BenchmarkGetDevice(b *testing.B) {
	s := servertest.Start(b)
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
		res, err := http.ReadResponse(answers, nil)
		if err != nil || res.StatusCode != http.StatusOK {
			b.Fatal(res, err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			b.Fatal(err)
		}
		_ = res.Body.Close()
	}
}
