package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"time"

	"muster/firmware"
	"muster/firmware/catalog"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

const (
	// demoFailures is the part of the demo's updates that go wrong: its rollout is to stop itself.
	demoFailures = 0.5
	demoByDDI    = 5 // devices
	demoImage    = 200_000
	demoProduct  = "demo-device"
)

// demoRollout begins a rollout to the demo's devices on a server that knows no firmware yet, with a
// release that is signed by a key which nobody keeps.
func (s *Server) demoRollout(ctx context.Context) error {
	keys, err := s.firmware.Keys(ctx)
	if err != nil || len(keys) > 0 {
		return err //nolint:wrapcheck // it says what it was doing
	}
	list, err := s.rollouts.operator.Read().Rollouts(ctx, operator.Query{Limit: 1})
	if err != nil || len(list) > 0 {
		return err //nolint:wrapcheck // likewise
	}
	release, err := s.demoRelease(ctx)
	if err != nil {
		return err
	}
	plan := rollout.DefaultPlan()
	plan.Phases = []rollout.Phase{
		{Name: "canary", Count: 4, Success: 25, Failure: rollout.Threshold{Absolute: 4}, Soak: 5 * time.Second, Gate: rollout.Auto},
		{Name: "all", Percent: 100, Success: 90, Failure: rollout.Threshold{Absolute: 4}, Gate: rollout.Auto},
	}
	plan.Concurrent, plan.Attempts, plan.Soak = 4, 1, 3*time.Second
	plan.Deadlines.Installing, plan.Deadlines.Rebooting = 20*time.Second, 20*time.Second
	_, err = s.rollouts.operator.Create(ctx, rollout.Person{ID: "demo", Name: "Demo"}, operator.Spec{
		Name: "Demo: a bad release", Release: release, Query: "id:demo-*", Membership: rollout.Snapshot, Supersede: rollout.Wait, Seed: "demo", Plan: plan,
		Note: "Half of the simulated devices fail to install it: the rollout stops itself.", Start: true,
	})
	return err //nolint:wrapcheck // likewise
}

// demoRelease publishes a release for the demo's devices, and returns its id.
func (s *Server) demoRelease(ctx context.Context) (string, error) {
	image := make([]byte, demoImage)
	_, _ = rand.NewChaCha8([32]byte{'d', 'e', 'm', 'o'}).Read(image) // it never fails
	sum := sha256.Sum256(image)
	digest := hex.EncodeToString(sum[:])
	if _, _, err := s.firmware.Put(ctx, firmware.Upload{SHA256: digest, Filename: "demo-2.0.0.bin"}, bytes.NewReader(image)); err != nil {
		return "", err //nolint:wrapcheck // it says what it was doing
	}
	public, secret, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", fmt.Errorf("make the demo's key: %w", err)
	}
	text, err := firmware.PublicPEM(public)
	if err != nil {
		return "", err //nolint:wrapcheck // likewise
	}
	if _, err := s.firmware.AddKey(ctx, "demo", text, ""); err != nil {
		return "", err //nolint:wrapcheck // likewise
	}
	m := &firmware.Manifest{
		Schema: firmware.Schema, Product: demoProduct, Version: "2.0.0", Type: "app", Created: s.cfg.Now().UTC().Truncate(time.Second),
		Files: []firmware.File{{Filename: "demo-2.0.0.bin", SHA256: digest, Size: int64(len(image))}},
	}
	sig, err := firmware.Sign(secret, m)
	if err != nil {
		return "", err //nolint:wrapcheck // likewise
	}
	manifest, err := m.Bytes()
	if err != nil {
		return "", err //nolint:wrapcheck // likewise
	}
	r, err := s.firmware.Create(ctx, catalog.Spec{Manifest: manifest, Signatures: []firmware.Signature{sig}})
	if err != nil {
		return "", err //nolint:wrapcheck // likewise
	}
	_, err = s.firmware.Publish(ctx, r.ID, "")
	return r.ID, err //nolint:wrapcheck // likewise
}
