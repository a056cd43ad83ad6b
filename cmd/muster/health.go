package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"time"

	"muster"
)

type healthCmd struct {
	HTTP string `name:"http" default:":8080" help:"Address of the server's HTTP port." placeholder:"ADDR"`
}

// Run asks /readyz.
func (h *healthCmd) Run(ctx context.Context, c *console) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addr := h.HTTP
	if host, port, err := net.SplitHostPort(addr); err == nil && (host == "" || host == "0.0.0.0" || host == "::") {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody)
	if err != nil {
		return muster.Errorf(muster.Invalid, "address %q: %w", h.HTTP, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return muster.Errorf(muster.Unavailable, "no server answers at %s", addr)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		c.printf("ready\n")
		return nil
	}
	var body struct {
		Reasons []struct{ Part, Detail string } `json:"reasons"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 64<<10)).Decode(&body); err != nil {
		return muster.Errorf(muster.Unavailable, "%s answered %s", addr, resp.Status)
	}
	var why []string
	for _, r := range body.Reasons {
		why = append(why, r.Part+": "+r.Detail)
	}
	return muster.Errorf(muster.Unavailable, "not ready: %s", strings.Join(why, "; "))
}
