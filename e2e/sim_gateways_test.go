package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// simulate starts muster sim, which ends with the test.
func (m *muster) simulate(args ...string) {
	m.t.Helper()
	c := exec.Command(program, append([]string{"sim", "--mqtt", m.mqtt, "--http", m.http, "--admin-key", m.key}, args...)...)
	var said strings.Builder
	c.Stderr = &said
	if err := c.Start(); err != nil {
		m.t.Fatalf("start muster sim: %v", err)
	}
	m.t.Cleanup(func() {
		_ = c.Process.Kill() // it may have ended by itself
		_ = c.Wait()         // killed, it fails
		if m.t.Failed() {
			m.t.Logf("muster sim %s says: %s", strings.Join(args, " "), &said)
		}
	})
}

// TestAFleetBehindGatewaysIsThereAndACutGatewayIsTheCause is muster sim --gateways: by few connections
// all are online, at their places and with what they run; one gateway is lost, and is named for it.
func TestAFleetBehindGatewaysIsThereAndACutGatewayIsTheCause(t *testing.T) {
	t.Parallel()
	const fleet, gateways = 300, 12
	m := serve(t)
	m.simulate("--devices", fmt.Sprint(fleet), "--gateways", fmt.Sprint(gateways), "--rate", "1", "--silent", "0", "--cut", "10m", "--cut-after", "20s")
	m.await("all to say what they run", settleLimit, func() bool { return m.matching(`firmware!="" has:parent`) == fleet })
	var clients struct{ Items []struct{ ID string } }
	m.ask(http.MethodGet, "/api/v1/clients?limit=1000", nil, http.StatusOK, &clients)
	if len(clients.Items) > gateways {
		t.Errorf("%d connections of %d gateways", len(clients.Items), gateways)
	}
	var one struct {
		Parent, Name string
		Groups       []string
		Tags         map[string]string
		Location     *struct{ Lat, Lon float64 }
	}
	m.ask(http.MethodGet, "/api/v1/devices/sim-mtr-00001", nil, http.StatusOK, &one)
	if one.Parent != "sim-gw-narvik-01" || one.Name != "Meter 1, Narvik" || one.Location == nil || len(one.Groups) != 1 || one.Groups[0] != "meters-north" || one.Tags["site"] != "Narvik" {
		t.Errorf("a device is %+v", one)
	}
	m.await("the lost gateway to be the cause", settleLimit, func() bool {
		c := m.figures().Change.Cause
		return c != nil && c.Kind == "gateway" && c.Name == "sim-gw-lulea-03" && c.Together >= fleet/gateways
	})
	if n := len(m.telemetry("sim-mtr-00001")); n == 0 {
		t.Error("a device behind a gateway has no telemetry")
	}
}
