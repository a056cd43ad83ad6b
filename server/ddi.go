package server

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"

	"muster"
	"muster/api/ddi"
	"muster/devices"
	"muster/devices/twin"
	"muster/firmware/deliver"
	"muster/firmware/desk"
	"muster/firmware/director"
)

// buildDDI makes hawkBit's door, unless it is off.
func (s *Server) buildDDI() (err error) {
	set := s.cfg.DDI
	if set.Off {
		return nil
	}
	s.ddi, err = ddi.New(ddi.Config{
		Desk: s.rollouts.desk, Devices: s.registry, Images: ddiImages{s}, Attributes: ddiAttributes{s}, Releases: shelf{s.firmware},
		Past: s.stores.control, Consents: consents{s}, Settings: set,
		Secure:  func(r *http.Request) bool { return s.web.Secure(r) },
		Asked:   s.rollouts.asks,
		Metrics: s.metrics, Now: s.cfg.Now, Log: s.cfg.Logger,
		Denied: func(r *http.Request, device muster.DeviceID, err error) {
			s.logins.Failed(devices.Attempt{Username: string(device), Peer: r.RemoteAddr, Listener: "http"}, err)
		},
	})
	return err //nolint:wrapcheck // it says what it was doing
}

// peopleSaid is what people at devices said, where they are asked; else nil.
func (s *Server) peopleSaid() desk.Consents {
	if !s.cfg.DDI.AskPeople {
		return nil
	}
	return s.stores.control
}

// consents has devices told by the other doors too when people said what they want. It is a ddi.Consents.
type consents struct{ server *Server }

// Consent implements ddi.Consents.
func (c consents) Consent(ctx context.Context, device muster.DeviceID) (desk.Consent, error) {
	return c.server.stores.control.Consent(ctx, device) //nolint:wrapcheck // it says what it was doing
}

// SetConsent implements ddi.Consents.
func (c consents) SetConsent(ctx context.Context, device muster.DeviceID, n desk.Consent) error {
	if err := c.server.stores.control.SetConsent(ctx, device, n); err != nil {
		return err //nolint:wrapcheck // likewise
	}
	c.server.updates.talk.Wanted(device)
	return nil
}

// ddiDoor is the handler of DDI for the API; nil when it is off.
func (s *Server) ddiDoor() http.Handler {
	if s.ddi == nil {
		return nil
	}
	return s.ddi
}

// ddiImages sends images to devices that DDI knows by their tokens.
type ddiImages struct{ server *Server }

// Serve implements ddi.Images.
func (i ddiImages) Serve(w http.ResponseWriter, r *http.Request, device muster.DeviceID, action int32, digest string) {
	g := deliver.Grant{Device: device, Action: int64(action)}
	if _, err := hex.Decode(g.Digest[:], []byte(digest)); err != nil { // the manifest's check has 64 hex digits
		w.WriteHeader(http.StatusNotFound)
		return
	}
	i.server.delivery.Serve(w, r, g)
}

// ddiAttributes keeps what hawkBit's clients say of themselves in the reported side of the
// twin: all of it under "ddi", and what a rollout looks at where it looks for it.
type ddiAttributes struct{ server *Server }

// Names of attributes that mean something here, the first that a device tells counts.
func versionNames() []string {
	return []string{"firmware", "fw", "version", "sw_version", "swVersion", "firmware_version", "fw_version"}
}
func boardNames() []string    { return []string{"board", "hw_board", "hwBoard"} }
func revisionNames() []string { return []string{"revision", "hw_revision", "hwRevision"} }

func first(values map[string]string, names []string) string {
	for _, n := range names {
		if values[n] != "" {
			return values[n]
		}
	}
	return ""
}

// Attributes implements ddi.Attributes.
func (a ddiAttributes) Attributes(ctx context.Context, device muster.DeviceID, mode ddi.Mode, values map[string]string) error {
	own := make(map[string]any, len(values))
	for k, v := range values {
		own[k] = v
		if mode == ddi.Remove {
			own[k] = nil
		}
	}
	patch, version := map[string]any{"ddi": own}, ""
	if mode != ddi.Remove {
		hw := map[string]any{}
		for member, names := range map[string][]string{"board": boardNames(), "revision": revisionNames()} {
			if v := first(values, names); v != "" {
				hw[member] = v
			}
		}
		if len(hw) > 0 {
			patch["hw"] = hw
		}
		version = first(values, versionNames())
	}
	patches := []map[string]any{patch}
	if mode == ddi.Replace {
		patches = []map[string]any{{"ddi": nil}, patch}
	}
	if err := a.report(ctx, device, patches, version); err != nil {
		return err
	}
	if version != "" {
		a.server.seenVersions(ctx, []director.Report{director.SeenReport(device)})
	}
	return nil
}

// report keeps patches of what a device reports, and the version that it runs.
func (a ddiAttributes) report(ctx context.Context, device muster.DeviceID, patches []map[string]any, version string) error {
	batch := make([]twin.Report, len(patches))
	for i, p := range patches {
		text, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("encode attributes: %w", err)
		}
		batch[i] = twin.Report{Device: device, Patch: text}
	}
	if version != "" {
		batch = append(batch, twin.Report{Device: device, Version: version})
	}
	for _, err := range a.server.twins.ApplyReported(ctx, batch) {
		if err != nil {
			return err //nolint:wrapcheck // the twin says what it was doing
		}
	}
	return nil
}

var (
	_ ddi.Attributes = ddiAttributes{}
	_ ddi.Consents   = consents{}
	_ ddi.Images     = ddiImages{}
)
