package server_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/catalog"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/server"
	"muster/server/servertest"
)

// soon is how long the tests of firmware wait for what must happen.
const soon = time.Minute

// updating is a server with a rollout of version 2.0.0 to devices.
type updating struct {
	*server.Server
	t       *testing.T
	image   []byte
	release string // id
	sha256  string // of the image
	ids     []string
	rollout string // id
	soak    time.Duration
	retry   time.Duration
	secret  ed25519.PrivateKey
	dir     string // the data directory, where a test needs it
	// downgrade has the rollout bring devices an older version.
	downgrade bool
}

// startUpdating starts a server whose devices, which it makes, are to get an image of a size
// when the test begins the rollout.
func startUpdating(t *testing.T, releaseType string, size int, devices ...string) (*updating, map[string]string) {
	t.Helper()
	return startUpdatingAs(t, func(*server.Config) {}, releaseType, size, devices...)
}

// startUpdatingAs is startUpdating of a server that is set otherwise.
func startUpdatingAs(t *testing.T, change func(*server.Config), releaseType string, size int, devices ...string) (*updating, map[string]string) {
	t.Helper()
	u := &updating{t: t, image: imageOf(size), ids: devices, rollout: "r1", soak: time.Hour, retry: time.Hour}
	u.Server = servertest.Start(t, func(c *server.Config) {
		c.PresenceGrace = -1
		c.DDI.Idle, c.DDI.Busy = time.Second, time.Second
		change(c)
	})
	tokens := u.fill(releaseType)
	return u, tokens
}

// imageOf is an image of so many bytes.
func imageOf(size int) []byte {
	out := make([]byte, size)
	dice := rand.New(rand.NewPCG(1, 2))
	for i := range out {
		out[i] = byte(dice.Uint32())
	}
	return out
}

// fill has the release and the devices on the server, and returns the devices' tokens.
func (u *updating) fill(releaseType string) map[string]string {
	u.t.Helper()
	u.publish(releaseType, "2.0.0")
	return u.create()
}

// create makes the devices, and returns their tokens.
func (u *updating) create() map[string]string {
	u.t.Helper()
	tokens := map[string]string{}
	for _, id := range u.ids {
		tokens[id] = create(u.t, u.Server, id)
	}
	return tokens
}

// publish has the image, and a signed release of it, in the catalogue.
func (u *updating) publish(releaseType, version string) {
	u.t.Helper()
	must := func(err error) {
		u.t.Helper()
		if err != nil {
			u.t.Fatal(err)
		}
	}
	sum := sha256.Sum256(u.image)
	u.sha256 = hex.EncodeToString(sum[:])
	c, ctx := u.CatalogForTest(), u.t.Context()
	_, _, err := c.Put(ctx, firmware.Upload{SHA256: u.sha256, Filename: "pump.bin"}, bytes.NewReader(u.image))
	must(err)
	var text []byte
	if u.secret == nil {
		var pub ed25519.PublicKey
		pub, u.secret, err = ed25519.GenerateKey(nil)
		must(err)
		text, err = firmware.PublicPEM(pub)
		must(err)
		_, err = c.AddKey(ctx, "test", text, "")
		must(err)
	}
	m := &firmware.Manifest{
		Schema: firmware.Schema, Product: "pump", Version: version, Type: releaseType, Created: time.Now().UTC().Truncate(time.Second),
		Files: []firmware.File{{Filename: "pump.bin", SHA256: u.sha256, Size: int64(len(u.image))}},
	}
	sig, err := firmware.Sign(u.secret, m)
	must(err)
	text, err = m.Bytes()
	must(err)
	r, err := c.Create(ctx, catalog.Spec{Manifest: text, Signatures: []firmware.Signature{sig}})
	must(err)
	_, err = c.Publish(ctx, r.ID, "")
	must(err)
	u.release = r.ID
}

// begin makes the rollout, which runs: the server looks after it within a second.
func (u *updating) begin(change ...func(p *rollout.Plan)) {
	u.t.Helper()
	r := &rollout.Rollout{ID: u.rollout, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: rollout.DefaultPlan(), Version: 1, Release: u.release, Product: "pump"}
	r.Plan.Phases = []rollout.Phase{{Name: "all", Percent: 100, Success: 50, Failure: rollout.Threshold{Absolute: 3}, Gate: rollout.Auto}}
	r.Plan.Soak, r.Plan.RetryAfter, r.Downgrade = u.soak, u.retry, u.downgrade
	for _, c := range change {
		c(&r.Plan)
	}
	r.Upto, r.Counts = []uint64{0}, make([]rollout.Counts, 1)
	r.Counts[0].By[rollout.Queued] = len(u.ids)
	devices := make([]rollout.Device, len(u.ids))
	for i, id := range u.ids {
		devices[i] = rollout.Device{Rollout: r.ID, ID: muster.DeviceID(id), Rank: rollout.Rank("s", muster.DeviceID(id))}
	}
	if err := u.ControlForTest().InsertRollout(u.t.Context(), r, devices); err != nil {
		u.t.Fatal(err)
	}
}

// beginOf makes a rollback of a rollout, which runs and waits for a device.
func (u *updating) beginOf(of string) {
	u.t.Helper()
	r := &rollout.Rollout{ID: u.rollout, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: rollout.DefaultPlan(), Version: 1, Release: u.release, Product: "pump"}
	r.Plan.Phases = []rollout.Phase{{Name: "all", Percent: 100, Success: 50, Gate: rollout.Manual}}
	r.Of, r.Downgrade, r.Upto, r.Counts = of, true, []uint64{0}, make([]rollout.Counts, 1)
	r.Counts[0].By[rollout.Queued] = 1
	create(u.t, u.Server, "other") // which never comes
	devices := []rollout.Device{{Rollout: r.ID, ID: "other", Rank: rollout.Rank("s", "other")}}
	if err := u.ControlForTest().InsertRollout(u.t.Context(), r, devices); err != nil {
		u.t.Fatal(err)
	}
}

// stop stops the rollout as a person does.
func (u *updating) stop(status rollout.Status) {
	u.t.Helper()
	err := u.ControlForTest().Decide(u.t.Context(), u.rollout, director.Fence{}, muster.MicrosOf(time.Now()), director.Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		r.Status = status
		return nil, nil
	})
	if err != nil {
		u.t.Fatal(err)
	}
}

// row is a device as the store has it.
func (u *updating) row(id string) (d rollout.Device) {
	u.t.Helper()
	errSeen := muster.Errorf(muster.Conflict, "nothing is to be kept")
	err := u.ControlForTest().Decide(u.t.Context(), u.rollout, director.Fence{}, 1, director.Select{IDs: []muster.DeviceID{muster.DeviceID(id)}}, func(_ *rollout.Rollout, list []*rollout.Device) ([]rollout.Change, error) {
		if len(list) == 1 {
			d = *list[0]
		}
		return nil, errSeen
	})
	if !errors.Is(err, errSeen) {
		u.t.Fatal(err)
	}
	return d
}

// is fails the test unless the device is in one of some states.
func (u *updating) is(id string, states ...rollout.State) {
	u.t.Helper()
	if d := u.row(id); !slices.Contains(states, d.State) {
		u.t.Errorf("%s is %s (%s), want %v", id, d.State, d.Reason, states)
	}
}

// becomes waits until the device is in a state.
func (u *updating) becomes(id string, state rollout.State) {
	u.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(soon)
	for u.row(id).State != state {
		select {
		case <-tick.C:
		case <-end:
			u.t.Fatalf("%s is %s, and does not become %s", id, u.row(id).State, state)
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
