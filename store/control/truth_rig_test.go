package control_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"muster"
	"muster/audit"
	"muster/devices"
	"muster/feed"
	"muster/firmware"
	"muster/firmware/blob"
	"muster/firmware/catalog"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/store/control"
)

// truth is all that decides about firmware, over one store: the catalogue, people who operate, and two processes
// that look after rollouts. Its audit log is signed and sealed.
type truth struct {
	t         testing.TB
	store     *control.Control
	anchor    *anchor
	sealer    *audit.Sealer
	catalog   *catalog.Catalog
	operator  *operator.Operator
	notes     *operator.Noting
	directors [2]*director.Director
	at        time.Time
	ids       []muster.DeviceID
	secrets   []ed25519.PrivateKey
	images    int
}

const truthDevices = 12

// The fleet of a truth.

func (x *truth) Check(q string) error {
	if q == "all" || q == "canary" {
		return nil
	}
	return muster.InvalidAt("0", "nobody knows %s", q)
}

func (x *truth) MatchAll(q string) ([]muster.DeviceID, error) {
	if q == "canary" {
		return x.ids[:3], nil
	}
	return x.ids, x.Check(q)
}

func (x *truth) Matches(q string, id muster.DeviceID) bool {
	return q == "all" || slices.Contains(x.ids[:3], id)
}

func (x *truth) Facts(*rollout.Rollout, muster.DeviceID) rollout.Facts {
	return rollout.Facts{Hardware: true, Source: true, Signed: true, Reachable: true, Local: x.at, Version: "1.0.0"}
}

// The releases of a truth.

type truthReleases struct{ *catalog.Catalog }

func (r truthReleases) Known(ctx context.Context, id string) (operator.Release, error) {
	got, err := r.Release(ctx, id)
	if err != nil {
		return operator.Release{}, err
	}
	m, err := firmware.ParseManifest(got.Manifest)
	return operator.Release{Product: m.Product, Security: int64(m.Security)}, err
}

func openTruth(t testing.TB, store *control.Control, dir string) *truth {
	t.Helper()
	x := &truth{t: t, store: store, anchor: &anchor{}, at: time.Unix(1_800_000_000, 0)}
	x.sealer = audit.NewSealer(store, x.anchor, auditKeys, x.now, slog.New(slog.DiscardHandler))
	x.nil(x.sealer.Open(t.Context()))
	store.SignAudit(auditKeys.MAC)
	for i := range truthDevices {
		id := muster.DeviceID(fmt.Sprintf("dev-%06d", i))
		x.ids = append(x.ids, id)
		x.nil(store.InsertDevices(x.ctx(), []devices.Device{{ID: id}}, nil))
	}
	blobs, err := blob.Open(dir, blob.Limits{}, x.now)
	x.nil(err)
	x.catalog = catalog.New(catalog.Config{Store: store, Blobs: blobs, Now: x.now, Logger: slog.New(slog.DiscardHandler)})
	x.notes = operator.NewNoting(store)
	x.operator = operator.New(operator.Parts{Store: store, Reader: store, Fleet: x, Facts: x, Releases: truthReleases{x.catalog}, Now: x.now}, x.notes, operator.Options{})
	for i := range x.directors {
		x.begin(i)
	}
	return x
}

// begin starts a process that looks after rollouts, anew when there was one.
func (x *truth) begin(i int) {
	x.directors[i] = director.New(x.notes, there{x.now}, x.now, director.Options{Owner: fmt.Sprintf("n%d-%d", i, x.at.UnixNano())})
}

func (x *truth) now() time.Time { return x.at }

func (x *truth) nil(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// ctx is that of a request of Ann's, itself that of what goes on by itself.
func (x *truth) ctx() context.Context {
	return audit.With(context.Background(), audit.Actor{Kind: audit.User, ID: "usr_ann", Name: "Ann"}, x.now)
}

func (x *truth) itself() context.Context {
	return feed.With(audit.With(context.Background(), audit.Actor{Kind: audit.System, Name: "rollouts"}, x.now))
}

// key adds a signing key.
func (x *truth) key(name string) catalog.Key {
	x.t.Helper()
	public, secret, err := ed25519.GenerateKey(nil)
	x.nil(err)
	text, err := firmware.PublicPEM(public)
	x.nil(err)
	k, err := x.catalog.AddKey(x.ctx(), name, text, "usr_ann")
	x.nil(err)
	x.secrets = append(x.secrets, secret)
	return k
}

// image uploads an image that no other is like.
func (x *truth) image() catalog.Artifact {
	x.t.Helper()
	x.images++
	text := fmt.Appendf(nil, "image %d", x.images)
	sum := sha256.Sum256(text)
	a, _, err := x.catalog.Put(x.ctx(), firmware.Upload{SHA256: hex.EncodeToString(sum[:]), Filename: fmt.Sprintf("i%d.bin", x.images), By: "usr_ann"}, bytes.NewReader(text))
	x.nil(err)
	return a
}

// draft makes a release of a new image, signed by all keys, with notes that are long.
func (x *truth) draft(version string) catalog.Release {
	x.t.Helper()
	a := x.image()
	m := &firmware.Manifest{
		Schema: firmware.Schema, Product: "pump", Version: version, Type: "app", Security: 3, Created: x.at.UTC().Truncate(time.Second),
		Files: []firmware.File{{Filename: a.Filename, SHA256: a.SHA256, Size: a.Size}},
	}
	var sigs []firmware.Signature
	for _, secret := range x.secrets {
		sig, err := firmware.Sign(secret, m)
		x.nil(err)
		sigs = append(sigs, sig)
	}
	text, err := m.Bytes()
	x.nil(err)
	r, err := x.catalog.Create(x.ctx(), catalog.Spec{Manifest: text, Signatures: sigs, Channel: "stable", Notes: string(bytes.Repeat([]byte("n"), 600)), By: "usr_ann"})
	x.nil(err)
	return r
}

func (x *truth) published(version string) catalog.Release {
	x.t.Helper()
	r, err := x.catalog.Publish(x.ctx(), x.draft(version).ID, "usr_ann")
	x.nil(err)
	return r
}

// spec is a rollout of three canaries and then of all.
func (x *truth) spec(release string, change ...func(*operator.Spec)) operator.Spec {
	s := operator.Spec{Name: "Pumps", Release: release, Query: "all", Membership: rollout.Snapshot, Supersede: rollout.Wait, Seed: "s", Plan: rollout.DefaultPlan(), Note: "a note"}
	stop := rollout.Threshold{Absolute: 3}
	s.Plan.Phases = []rollout.Phase{
		{Name: "canary", Query: "canary", Success: 50, Failure: stop, Soak: 5 * time.Second, Gate: rollout.Auto},
		{Name: "all", Percent: 100, Success: 50, Failure: stop, Gate: rollout.Auto},
	}
	s.Plan.Soak, s.Plan.Attempts, s.Plan.RetryAfter, s.Plan.Concurrent = 2*time.Second, 2, 5*time.Second, 8
	for _, c := range change {
		c(&s)
	}
	return s
}

func (x *truth) rollout(release string, change ...func(*operator.Spec)) rollout.Rollout {
	x.t.Helper()
	r, err := x.operator.Create(x.ctx(), rollout.Person{ID: "usr_ann", Name: "Ann"}, x.spec(release, change...))
	x.nil(err)
	return r
}

func starts(s *operator.Spec) { s.Start = true }

// tick has one process look after rollouts, some seconds later.
func (x *truth) tick(i int, seconds int) {
	x.t.Helper()
	x.at = x.at.Add(time.Duration(seconds) * time.Second)
	x.nil(x.directors[i].Tick(x.itself()))
	open, err := x.store.Open(context.Background(), 1000)
	x.nil(err)
	x.nil(x.operator.Tick(x.itself(), open))
	x.nil(x.sealer.Seal(context.Background())) // as each second
}

// says has devices report something; what does not happen to one is its own affair.
func (x *truth) says(e rollout.Event, ids ...muster.DeviceID) {
	x.t.Helper()
	list := make([]director.Report, len(ids))
	for i, id := range ids {
		list[i] = director.Report{Device: id, Fact: rollout.Fact{Event: e, Detail: "as it says"}}
	}
	for _, err := range x.directors[0].Reports(context.Background(), list) {
		if k := muster.KindOf(err); err != nil && k != muster.NotFound && k != muster.Conflict && k != muster.Stale {
			x.t.Fatal(err)
		}
	}
}

func (x *truth) seal() {
	x.t.Helper()
	_, err := x.store.SealRollouts(x.itself(), 100)
	x.nil(err)
	x.nil(x.sealer.Seal(context.Background()))
}

// found is all that muster doctor would say of the store.
func (x *truth) found() (out []string) {
	x.t.Helper()
	ctx := context.Background()
	_, err := x.store.VerifyAudited(ctx, func(object, what string) { out = append(out, object+": "+what) })
	x.nil(err)
	_, err = x.store.VerifyRollouts(ctx, func(id, what string) { out = append(out, "rollout "+id+": "+what) })
	x.nil(err)
	_, err = audit.Verify(ctx, x.store, x.anchor, auditKeys, x.at, func(f audit.Finding) {
		out = append(out, fmt.Sprintf("records %d to %d: %s", f.First, f.Last, f.What))
	})
	x.nil(err)
	return out
}
