package control_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/devices/join"
	"muster/store/control"
)

// all is what the join part of a store holds.
type all struct {
	Authorities   []join.Authority
	Provisionings []join.Provisioning
	Claims        []join.ClaimCode
	Keys          []join.AdoptionKey
	Blocks        []join.Block
}

func wantJoin(t *testing.T, c *control.Control, want all) {
	t.Helper()
	var got all
	var err error
	ctx := t.Context()
	got.Authorities, err = c.Authorities(ctx)
	wantNil(t, err)
	got.Provisionings, err = c.Provisionings(ctx)
	wantNil(t, err)
	got.Claims, err = c.ClaimCodes(ctx)
	wantNil(t, err)
	got.Keys, err = c.AdoptionKeys(ctx)
	wantNil(t, err)
	got.Blocks, err = c.Blocks(ctx)
	wantNil(t, err)
	same := cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) })
	if d := cmp.Diff(want, got, same); d != "" {
		t.Errorf("the store differs (-want +got):\n%s", d)
	}
}

func authority(t *testing.T, id string) join.Authority {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	wantNil(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: id}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IsCA: true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, private)
	wantNil(t, err)
	cert, err := x509.ParseCertificate(der)
	wantNil(t, err)
	return join.Authority{ID: id, Name: `the "` + id, Cert: cert, Profile: devices.DefaultProfile, Created: 5, Proof: join.ByCertificate, Code: "code " + id}
}

func hash(s string) [32]byte { return sha256.Sum256([]byte(s)) }

func TestAuthoritiesAreKeptAndGoWithWhatCameByThem(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantJoin(t, c, all{})
		a, b := authority(t, "ca_1"), authority(t, "ca_2")
		wantNil(t, c.PutProfile(ctx, devices.Profile{Name: "p"}))
		wantNil(t, c.PutAuthority(ctx, b))
		wantNil(t, c.PutAuthority(ctx, a))
		a.Name, a.Profile, a.JIT, a.Verified = "new", "p", true, 7
		changed := a
		changed.Created, changed.Code, changed.Proof = 99, "x", join.NoProof // stay as they were
		wantNil(t, c.PutAuthority(ctx, changed))
		wantJoin(t, c, all{Authorities: []join.Authority{a, b}})
		gone := a
		gone.Profile = "nothing"
		wantKind(t, c.PutAuthority(ctx, gone), muster.Invalid)
		wantKind(t, c.DeleteProfile(ctx, "p"), muster.Conflict)

		d := device("d")
		wantNil(t, c.InsertDevices(ctx, []devices.Device{d}, nil))
		learned, revoked, other, own := credential("cred_1", "d"), credential("cred_2", "d"), credential("cred_3", "d"), credential("cred_4", "d")
		learned.CA, revoked.CA, revoked.Revoked, other.CA = "ca_1", "ca_1", 7, "ca_2"
		wantNil(t, c.SaveCredentials(ctx, []devices.Credential{learned, revoked, other, own}))
		wantHeld(t, c, held{Devices: []devices.Device{d}, Credentials: []devices.Credential{learned, revoked, other, own}})
		wantNil(t, c.DeleteAuthority(ctx, "ca_1"))
		wantKind(t, c.DeleteAuthority(ctx, "ca_1"), muster.NotFound)
		wantHeld(t, c, held{Devices: []devices.Device{d}, Credentials: []devices.Credential{revoked, other, own}})
		wantJoin(t, c, all{Authorities: []join.Authority{b}})
		wantNil(t, c.DeleteProfile(ctx, "p"))
		wantNil(t, c.SaveCredentials(ctx, []devices.Credential{learned})) // its authority is gone
		wantHeld(t, c, held{Devices: []devices.Device{d}, Credentials: []devices.Credential{revoked, other, own}})
	})
}

func TestProvisioningsAreKeptWithTheirProfile(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		p := join.Provisioning{Profile: "p", Strategy: join.Create, Key: "k1", Hash: hash("1"), Created: 1}
		wantKind(t, c.PutProvisioning(ctx, p), muster.Invalid)
		wantNil(t, c.PutProfile(ctx, devices.Profile{Name: "p"}))
		wantNil(t, c.PutProvisioning(ctx, p))
		plain := join.Provisioning{Profile: devices.DefaultProfile, Strategy: join.Preprovisioned, Key: "K1", Hash: hash("2"), Created: 2}
		wantNil(t, c.PutProvisioning(ctx, plain))
		p.Strategy, p.Key, p.Hash, p.Created = join.Preprovisioned, "k2", hash("3"), 3
		wantNil(t, c.PutProvisioning(ctx, p))
		wantJoin(t, c, all{Provisionings: []join.Provisioning{plain, p}})
		wantKind(t, c.DeleteProfile(ctx, "p"), muster.Conflict)
		wantNil(t, c.DeleteProvisioning(ctx, "p"))
		wantKind(t, c.DeleteProvisioning(ctx, "p"), muster.NotFound)
		wantNil(t, c.DeleteProfile(ctx, "p"))
		wantJoin(t, c, all{Provisionings: []join.Provisioning{plain}})
	})
}

func TestClaimCodesAreKeptAndGoWithTheirDevice(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		one := join.ClaimCode{Device: "d", Hash: hash("1"), Created: 1, Expires: 2}
		wantKind(t, c.PutClaimCode(ctx, one), muster.NotFound)
		wantNil(t, c.InsertDevices(ctx, []devices.Device{device("d"), device("e"), device("f")}, nil))
		wantNil(t, c.PutClaimCode(ctx, one))
		one.Hash, one.Created, one.Expires = hash("2"), 3, 4
		two, three := join.ClaimCode{Device: "e", Hash: hash("e")}, join.ClaimCode{Device: "f", Hash: hash("f")}
		for _, code := range []join.ClaimCode{one, two, three} {
			wantNil(t, c.PutClaimCode(ctx, code))
		}
		wantJoin(t, c, all{Claims: []join.ClaimCode{one, two, three}})
		wantNil(t, c.DeleteClaimCodes(ctx, []muster.DeviceID{"e", "nobody"}))
		wantNil(t, c.DeleteClaimCodes(ctx, nil))
		wantNil(t, c.DeleteDevices(ctx, []muster.DeviceID{"f"}))
		wantJoin(t, c, all{Claims: []join.ClaimCode{one}})
	})
}

func TestAdoptionKeysAndBlocksAreKept(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		k, l := join.AdoptionKey{ID: "adk_1", Name: "é", Hash: hash("1"), Created: 1, Expires: 2}, join.AdoptionKey{ID: "adk_2", Name: "b", Hash: hash("2")}
		wantNil(t, c.InsertAdoptionKey(ctx, l))
		wantNil(t, c.InsertAdoptionKey(ctx, k))
		wantKind(t, c.InsertAdoptionKey(ctx, k), muster.Conflict)
		b := join.Block{Hash: hash("b"), Label: "x", Created: 3}
		wantNil(t, c.InsertBlock(ctx, b))
		wantNil(t, c.InsertBlock(ctx, join.Block{Hash: b.Hash, Label: "again"}))
		wantJoin(t, c, all{Keys: []join.AdoptionKey{k, l}, Blocks: []join.Block{b}})
		wantNil(t, c.DeleteAdoptionKey(ctx, "adk_2"))
		wantKind(t, c.DeleteAdoptionKey(ctx, "adk_2"), muster.NotFound)
		wantNil(t, c.DeleteBlock(ctx, b.Hash))
		wantKind(t, c.DeleteBlock(ctx, b.Hash), muster.NotFound)
		wantJoin(t, c, all{Keys: []join.AdoptionKey{k}})
	})
}
