package catalog_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/catalog"
	"muster/firmware/image"
	"muster/firmware/rollout"
)

func TestAReleaseIsPublishedOnceItIsSignedAndItsImagesAreHere(t *testing.T) {
	onEach(t, func(r *rig) {
		key := r.signer("ana")
		img := []byte("the image")
		m := manifest("2.0.0", [][]byte{img})
		rel := r.draft(m)
		r.wantKind(r.Offerable(r.Context(), rel.ID), muster.Conflict, "draft")
		_, err := r.Publish(r.asked(), rel.ID, "usr_2")
		r.wantKind(err, muster.Conflict, "0 good signatures")
		_, err = r.Sign(r.asked(), rel.ID, r.signed(m, key))
		r.must(err)
		_, err = r.Publish(r.asked(), rel.ID, "usr_2")
		r.wantKind(err, muster.Conflict, "not here")
		r.put(img)
		got, err := r.Publish(r.asked(), rel.ID, "usr_2")
		r.must(err)
		if got.State != catalog.Published || got.PublishedBy != "usr_2" || got.Published == 0 || got.Revision != 3 {
			t.Errorf("%+v", got)
		}
		kept, err := r.Release(r.Context(), rel.ID)
		r.must(err)
		text, err := m.Bytes()
		r.must(err)
		if !bytes.Equal(kept.Manifest, text) || kept.State != catalog.Published || len(kept.Signatures) != 1 || kept.Product != "pump" || kept.Version != "2.0.0" {
			t.Errorf("%+v", kept)
		}
		r.must(r.Offerable(r.Context(), rel.ID))
		r.must(r.Startable(r.Context(), rel.ID))
		want := []string{
			"firmware_key.create firmware/keys/" + key.id, "release.create firmware/releases/" + rel.ID, "release.sign firmware/releases/" + rel.ID,
			"artifact.create firmware/artifacts/" + digest(img), "release.publish firmware/releases/" + rel.ID,
		}
		if got := r.records(); !slices.Equal(got, want) {
			t.Errorf("the audit log has %v", got)
		}
	})
}

func TestAPublishedReleaseStaysAsItIs(t *testing.T) {
	onEach(t, func(r *rig) {
		key := r.signer("ana")
		a := r.put([]byte("the image"))
		rel := r.draft(manifest("2.0.0", [][]byte{[]byte("the image")}), key)
		notes, channel := "better", "beta"
		_, err := r.Change(r.asked(), rel.ID, catalog.ReleaseChange{Notes: &notes, Channel: &channel})
		r.must(err)
		_, err = r.Publish(r.asked(), rel.ID, "usr_1")
		r.must(err)
		_, err = r.Change(r.asked(), rel.ID, catalog.ReleaseChange{Notes: &channel})
		r.wantKind(err, muster.Conflict, "only a draft")
		r.wantKind(r.Delete(r.asked(), rel.ID), muster.Conflict, "only a draft")
		r.wantKind(r.DeleteArtifact(r.asked(), a.SHA256), muster.Conflict, rel.ID)
		_, err = r.Publish(r.asked(), rel.ID, "usr_1")
		r.wantKind(err, muster.Conflict, "published already")
		got, err := r.Release(r.Context(), rel.ID)
		r.must(err)
		if got.Notes != "better" || got.Channel != "beta" {
			t.Errorf("%+v", got)
		}
		_, err = r.Deprecate(r.asked(), rel.ID, "usr_1")
		r.must(err)
		r.must(r.Offerable(r.Context(), rel.ID))
		r.wantKind(r.Startable(r.Context(), rel.ID), muster.Conflict, "deprecated")
		_, err = r.Revoke(r.asked(), rel.ID, " ", "usr_1")
		r.wantKind(err, muster.Invalid, "reason")
		_, err = r.Revoke(r.asked(), rel.ID, "it bricks", "usr_3")
		r.must(err)
		r.wantKind(r.Offerable(r.Context(), rel.ID), muster.Conflict, "revoked")
		for name, try := range map[string]func() error{
			"revoke":    func() error { _, err := r.Revoke(r.asked(), rel.ID, "again", "usr_1"); return err },
			"deprecate": func() error { _, err := r.Deprecate(r.asked(), rel.ID, "usr_1"); return err },
			"publish":   func() error { _, err := r.Publish(r.asked(), rel.ID, "usr_1"); return err },
			"sign":      func() error { _, err := r.Sign(r.asked(), rel.ID, nil); return err },
			"delete":    func() error { return r.Delete(r.asked(), rel.ID) },
		} {
			if err := try(); muster.KindOf(err) != muster.Conflict || err == nil {
				t.Errorf("%s of a revoked release: %v", name, err)
			}
		}
		if got, err := r.Release(r.Context(), rel.ID); err != nil || got.Reason != "it bricks" || got.EndedBy != "usr_3" {
			t.Errorf("%+v %v", got, err)
		}
	})
}

func TestADraftGoesAndThenItsImages(t *testing.T) {
	onEach(t, func(r *rig) {
		a := r.put([]byte("the image"))
		rel := r.draft(manifest("2.0.0", [][]byte{[]byte("the image")}))
		r.wantKind(r.DeleteArtifact(r.asked(), a.SHA256), muster.Conflict, rel.ID)
		r.must(r.Delete(r.asked(), rel.ID))
		_, err := r.Release(r.Context(), rel.ID)
		r.wantKind(err, muster.NotFound)
		r.must(r.DeleteArtifact(r.asked(), a.SHA256))
		_, err = r.Artifact(r.Context(), a.SHA256)
		r.wantKind(err, muster.NotFound)
		r.wantKind(r.DeleteArtifact(r.asked(), a.SHA256), muster.NotFound)
		if left := r.left(""); len(left) != 0 {
			t.Errorf("%v is left", left)
		}
	})
}

func TestWhatARolloutHasStays(t *testing.T) {
	onEach(t, func(r *rig) {
		for i, keep := range []func(ro *rollout.Rollout, id string){
			func(ro *rollout.Rollout, id string) { ro.Release = id },
			func(ro *rollout.Rollout, id string) { ro.Rollback = id },
		} {
			rel := r.draft(manifest(fmt.Sprintf("2.0.%d", i), [][]byte{[]byte("x")}))
			ro := &rollout.Rollout{ID: fmt.Sprintf("r%d", i), Seed: "s", Status: rollout.Draft, Membership: rollout.Snapshot, Plan: rollout.DefaultPlan(), Version: 1}
			ro.Counts = make([]rollout.Counts, len(ro.Plan.Phases))
			keep(ro, rel.ID)
			r.must(r.store.InsertRollout(r.Context(), ro, nil))
			r.wantKind(r.Delete(r.asked(), rel.ID), muster.Conflict, "rollout")
		}
	})
}

func TestMOfNKeysMustHaveSigned(t *testing.T) {
	onEach(t, func(r *rig) {
		a, b, c := r.signer("a"), r.signer("b"), r.signer("c")
		r.put([]byte("the image"))
		m := manifest("2.0.0", [][]byte{[]byte("the image")})
		rel := r.draft(m, a)
		p, err := r.SetThreshold(r.asked(), 2)
		r.must(err)
		if p.Threshold != 2 || p.Revision != 2 {
			t.Errorf("%+v", p)
		}
		_, err = r.Publish(r.asked(), rel.ID, "usr_1")
		r.wantKind(err, muster.Conflict, "1 good signatures", "2 are needed")
		_, err = r.Sign(r.asked(), rel.ID, r.signed(m, a)) // again: still one
		r.must(err)
		_, err = r.Publish(r.asked(), rel.ID, "usr_1")
		r.wantKind(err, muster.Conflict, "1 good signatures")
		_, err = r.Sign(r.asked(), rel.ID, r.signed(m, c))
		r.must(err)
		_, err = r.Publish(r.asked(), rel.ID, "usr_1")
		r.must(err)
		r.must(r.Offerable(r.Context(), rel.ID))

		_, err = r.RevokeKey(r.asked(), c.id, "lost", "usr_1")
		r.must(err)
		r.wantKind(r.Offerable(r.Context(), rel.ID), muster.Conflict, "1 good signatures")
		_, err = r.Sign(r.asked(), rel.ID, r.signed(m, c))
		r.wantKind(err, muster.Invalid, "revoked")
		_, err = r.Sign(r.asked(), rel.ID, r.signed(m, b)) // so it may be offered again
		r.must(err)
		r.must(r.Offerable(r.Context(), rel.ID))
		_, err = r.SetThreshold(r.asked(), 3)
		r.must(err)
		r.wantKind(r.Offerable(r.Context(), rel.ID), muster.Conflict, "3 are needed")
	})
}

func TestAKeyIsAddedOnceAndRevokedForEver(t *testing.T) {
	onEach(t, func(r *rig) {
		k := r.signer("ana")
		got, err := r.Key(r.Context(), k.id)
		r.must(err)
		_, err = r.AddKey(r.asked(), "again", []byte(got.PEM), "usr_1")
		r.wantKind(err, muster.Conflict, "there already")
		_, err = r.AddKey(r.asked(), "x", []byte("no key"), "usr_1")
		r.wantKind(err, muster.Invalid)
		if f := muster.FieldsOf(err); len(f) != 1 || f[0] != "pem" {
			t.Errorf("it is about %v", f)
		}
		_, err = r.RevokeKey(r.asked(), k.id, "lost", "usr_2")
		r.must(err)
		_, err = r.RevokeKey(r.asked(), k.id, "lost", "usr_2")
		r.wantKind(err, muster.Conflict, "before")
		_, err = r.AddKey(r.asked(), "again", []byte(got.PEM), "usr_1")
		r.wantKind(err, muster.Conflict, "revoked")
		_, err = r.RevokeKey(r.asked(), "none", "lost", "usr_2")
		r.wantKind(err, muster.NotFound)
		got, err = r.Key(r.Context(), k.id)
		r.must(err)
		if got.Revoked == 0 || got.RevokedBy != "usr_2" || got.Reason != "lost" {
			t.Errorf("%+v", got)
		}
		for range catalog.MaxKeys - 1 {
			r.signer("more")
		}
		text, err := firmware.PublicPEM(newSigner(t).secret.Public().(ed25519.PublicKey))
		r.must(err)
		_, err = r.AddKey(r.asked(), "one too many", text, "usr_1")
		r.wantKind(err, muster.Conflict, "the most")
	})
}

func TestASignatureThatIsNotGoodIsRefusedWhereItComesIn(t *testing.T) {
	onEach(t, func(r *rig) {
		known, stranger := r.signer("ana"), newSigner(t)
		m := manifest("2.0.0", [][]byte{[]byte("x")})
		other := manifest("2.0.1", [][]byte{[]byte("x")})
		rel := r.draft(m)
		text, err := m.Bytes()
		r.must(err)
		for name, c := range map[string]struct {
			sigs  []firmware.Signature
			words string
		}{
			"of another manifest":     {r.signed(other, known), "not one of this manifest"},
			"of a key nobody knows":   {r.signed(m, stranger), "not known"},
			"the second of two":       {append(r.signed(m, known), r.signed(m, stranger)...), "not known"},
			"with no bytes":           {[]firmware.Signature{{Key: known.id}}, "not one of this manifest"},
			"under another's name":    {[]firmware.Signature{{Key: known.id, Sig: r.signed(m, stranger)[0].Sig}}, "not one of this manifest"},
			"of a name that is empty": {[]firmware.Signature{{}}, "not known"},
		} {
			_, err := r.Sign(r.asked(), rel.ID, c.sigs)
			r.wantKind(err, muster.Invalid, c.words)
			_, err = r.Create(r.asked(), catalog.Spec{Manifest: text, Signatures: c.sigs})
			r.wantKind(err, muster.Invalid, c.words)
			if got, err := r.Release(r.Context(), rel.ID); err != nil || len(got.Signatures) != 0 || got.Revision != 1 {
				t.Errorf("%s: %+v %v", name, got, err)
			}
		}
	})
}

func TestAManifestIsTakenWordByWordOrNotAtAll(t *testing.T) {
	r := newRig(t)
	for name, text := range map[string]string{
		"no JSON":        "{",
		"no manifest":    "{}",
		"a member twice": `{"schema":1,"schema":1}`,
		"a loose member": `{"artifacts":[{"filename":"a","format":"raw","sha256":"` + digest(nil) + `","size":1}],"created":"2026-01-01T00:00:00Z","product":"p","schema":1,"security_version":0,"type":"app","version":"1.0.0","x":1}`,
	} {
		_, err := r.Create(r.asked(), catalog.Spec{Manifest: []byte(text)})
		if f := muster.FieldsOf(err); muster.KindOf(err) != muster.Invalid || len(f) != 1 || f[0][:8] != "manifest" {
			t.Errorf("%s: %v, about %v", name, err, f)
		}
	}
}

func TestAManifestThatIsOutOfDateIsNotOffered(t *testing.T) {
	r := newRig(t)
	key := r.signer("ana")
	r.put([]byte("x"))
	m := manifest("2.0.0", [][]byte{[]byte("x")}, func(m *firmware.Manifest) { m.Expires = m.Created.Add(time.Hour) })
	rel, late := r.draft(m, key), r.draft(manifest("2.0.1", [][]byte{[]byte("x")}, func(m *firmware.Manifest) { m.Expires = m.Created.Add(time.Hour) }), key)
	_, err := r.Publish(r.asked(), rel.ID, "usr_1")
	r.must(err)
	r.must(r.Offerable(r.Context(), rel.ID))
	r.clock = r.clock.Add(2 * time.Hour)
	r.wantKind(r.Offerable(r.Context(), rel.ID), muster.Conflict, "out of date")
	_, err = r.Publish(r.asked(), late.ID, "usr_1")
	r.wantKind(err, muster.Conflict, "out of date")
	r.conf.Insecure = true
	r.again()
	r.wantKind(r.Offerable(r.Context(), rel.ID), muster.Conflict, "out of date")
}

func TestUnsignedReleasesAreForAnInsecureServerOnly(t *testing.T) {
	r := newRig(t)
	r.put([]byte("x"))
	rel := r.draft(manifest("2.0.0", [][]byte{[]byte("x")}))
	_, err := r.Publish(r.asked(), rel.ID, "usr_1")
	r.wantKind(err, muster.Conflict)
	r.conf.Insecure = true
	r.again()
	_, err = r.Publish(r.asked(), rel.ID, "usr_1")
	r.must(err)
	r.must(r.Offerable(r.Context(), rel.ID))
	r.conf.Insecure = false
	r.again()
	r.wantKind(r.Offerable(r.Context(), rel.ID), muster.Conflict, "0 good signatures")
}

func TestTheThresholdIsNeverBelowTheConfiguredOne(t *testing.T) {
	r := newRig(t)
	r.conf.Threshold = 2
	r.again()
	trust, err := r.Trust(r.Context())
	r.must(err)
	if trust.Policy.Threshold != 2 || trust.Policy.Least != 2 {
		t.Errorf("%+v", trust.Policy)
	}
	for _, n := range []int{-1, 0, 1, firmware.MaxSignatures + 1} {
		_, err := r.SetThreshold(r.asked(), n)
		r.wantKind(err, muster.Invalid, "threshold")
	}
	_, err = r.SetThreshold(r.asked(), 3)
	r.must(err)
	r.conf.Threshold = 4
	r.again()
	if trust, err = r.Trust(r.Context()); err != nil || trust.Policy.Threshold != 4 {
		t.Errorf("%+v %v", trust.Policy, err)
	}
}

// boot is an MCUboot image of a version.
func boot(major, minor uint8, rev uint16) []byte {
	var b bytes.Buffer
	for _, v := range []any{uint32(0x96f3b83d), uint32(0), uint16(512), uint16(0), uint32(100), uint32(0), major, minor, rev, uint32(0), uint32(0)} {
		_ = binary.Write(&b, binary.LittleEndian, v) // a buffer takes everything
	}
	body := append(b.Bytes(), make([]byte, 512-b.Len()+100)...)
	sum := sha256.Sum256(body)
	return append(append(body, 0x07, 0x69, 40, 0, 0x10, 0, 32, 0), sum[:]...)
}

// swu is an image for SWUpdate without files.
func swu(version, revisions string) []byte {
	var b []byte
	for _, m := range [][2]string{{"sw-description", `software = { version = "` + version + `"; hardware-compatibility: [ ` + revisions + ` ]; }`}, {"TRAILER!!!", ""}} {
		b = fmt.Appendf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", 1, 0o100644, 0, 0, 1, 0, len(m[1]), 0, 0, 0, 0, len(m[0])+1, 0, m[0])
		b = append(b, make([]byte, -len(b)&3)...)
		b = append(b, m[1]...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	return b
}

func TestAnImageIsWhatTheManifestSays(t *testing.T) {
	r := newRig(t)
	r.conf.Insecure = true
	r.again()
	r.put([]byte("raw")) // the second of two
	board := func(revisions ...string) func(*firmware.Manifest) {
		return func(m *firmware.Manifest) { m.Hardware = []firmware.Hardware{{Board: "pc", Revisions: revisions}} }
	}
	for name, c := range map[string]struct {
		img    []byte
		change func(*firmware.Manifest)
		words  string // empty when it is published
	}{
		"raw":                         {[]byte("raw"), nil, ""},
		"MCUboot":                     {boot(1, 2, 3), nil, ""},
		"called another format":       {boot(1, 2, 3), func(m *firmware.Manifest) { m.Files[0].Format = image.SWU }, "mcuboot by its bytes, and not swupdate"},
		"called raw":                  {boot(1, 2, 3), func(m *firmware.Manifest) { m.Files[0].Format = image.Raw }, "mcuboot by its bytes"},
		"cut off and called a format": {[]byte("070702"), func(m *firmware.Manifest) { m.Files[0].Format = image.SWU }, "raw by its bytes"},
		"damaged":                     {boot(1, 2, 3)[:600], nil, "is damaged: it is mcuboot by its bytes, and it has 600 bytes"},
		"damaged, and called that":    {boot(1, 2, 3)[:600], func(m *firmware.Manifest) { m.Files[0].Format = image.MCUboot }, "is damaged"},
		"damaged, and meant so":       {boot(1, 2, 3)[:600], func(m *firmware.Manifest) { m.Files[0].Format = image.Raw }, ""},
		"of another version":          {boot(1, 2, 4), nil, "says that it is version 1.2.4"},
		"of another size":             {[]byte("raw2"), func(m *firmware.Manifest) { m.Files[0].Size++ }, "has 4 bytes, and not 5"},
		"of the revisions":            {swu("1.2.3", `"1.0", "1.2"`), board("1.0", "1.2"), ""},
		"of other revisions":          {swu("1.2.3", `"1.0"`), board("1.0", "2.0"), "not for the revision 2.0"},
		"of a pattern of revisions":   {swu("1.2.3", `"#RE:^1"`), board("1.7"), ""},
		"of two, each its version": {boot(9, 9, 9), func(m *firmware.Manifest) {
			m.Files = append(m.Files, manifest("1.0.0", [][]byte{[]byte("raw")}).Files[0])
			m.Files[1].Filename = "b.bin"
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r.T = t
			r.put(c.img)
			m := manifest("1.2.3", [][]byte{c.img}, func(m *firmware.Manifest) { m.Product = "p" + digest([]byte(name))[:8] })
			if c.change != nil {
				c.change(m)
			}
			rel := r.draft(m)
			_, err := r.Publish(r.asked(), rel.ID, "usr_1")
			if c.words == "" {
				r.must(err)
				return
			}
			r.wantKind(err, muster.Conflict, c.words)
		})
	}
}

func TestAVersionIsPublishedOnceForTheSameHardware(t *testing.T) {
	onEach(t, func(r *rig) {
		r.conf.Insecure = true
		r.again()
		r.put([]byte("x"))
		for i, c := range []struct {
			version  string
			hardware []firmware.Hardware
			ok       bool
		}{
			{"1.0.0", []firmware.Hardware{{Board: "a", Revisions: []string{"1", "2"}}}, true},
			{"1.0.0", []firmware.Hardware{{Board: "a", Revisions: []string{"2", "3"}}}, false},
			{"1.0.0", []firmware.Hardware{{Board: "a", Revisions: []string{"3"}}}, true},
			{"1.0.0", []firmware.Hardware{{Board: "b"}}, true},
			{"1.0.0", []firmware.Hardware{{Board: "c"}, {Board: "b", Revisions: []string{"1"}}}, false},
			{"1.0.0", nil, false},
			{"1.0.1", nil, true},
			{"1.0.1", []firmware.Hardware{{Board: "z"}}, false},
		} {
			rel := r.draft(manifest(c.version, [][]byte{[]byte("x")}, func(m *firmware.Manifest) { m.Hardware = c.hardware }))
			_, err := r.Publish(r.asked(), rel.ID, "usr_1")
			if c.ok != (err == nil) || err != nil && muster.KindOf(err) != muster.Conflict {
				t.Errorf("the %d. release: %v", i+1, err)
			}
		}
	})
}

// TestOfManyPublishersAtOnceOneWins has many publish one draft, and drafts of one version, each
// from a catalogue of its own, as processes that share a database.
func TestOfManyPublishersAtOnceOneWins(t *testing.T) {
	onEach(t, func(r *rig) {
		r.conf.Insecure = true
		r.again()
		r.put([]byte("x"))
		one := r.draft(manifest("1.0.0", [][]byte{[]byte("x")}))
		race := func(n int, id func(i int) string) (won int) {
			var wg sync.WaitGroup
			errs := make([]error, n)
			for i := range n {
				c := catalog.New(r.conf)
				ctx := r.asked()
				wg.Go(func() { _, errs[i] = c.Publish(ctx, id(i), fmt.Sprintf("usr_%d", i)) })
			}
			wg.Wait()
			for _, err := range errs {
				switch {
				case err == nil:
					won++
				case muster.KindOf(err) != muster.Conflict:
					t.Error(err)
				}
			}
			return won
		}
		if n := race(8, func(int) string { return one.ID }); n != 1 {
			t.Errorf("%d published one draft", n)
		}
		var many []string
		for range 8 {
			many = append(many, r.draft(manifest("2.0.0", [][]byte{[]byte("x")})).ID)
		}
		if n := race(8, func(i int) string { return many[i] }); n != 1 {
			t.Errorf("%d releases of one version were published", n)
		}
		published, err := r.Releases(r.Context(), catalog.Filter{State: catalog.Published, Limit: 100})
		r.must(err)
		n := 0
		for _, rec := range r.records() {
			if rec[:15] == "release.publish" {
				n++
			}
		}
		if len(published) != 2 || n != 2 {
			t.Errorf("%d are published, with %d records", len(published), n)
		}
	})
}

func TestListsAreTheNewestFirst(t *testing.T) {
	onEach(t, func(r *rig) {
		var want []string
		for i := range 5 {
			r.put([]byte{byte(i)})
			rel := r.draft(manifest(fmt.Sprintf("1.0.%d", i), [][]byte{{byte(i)}}, func(m *firmware.Manifest) { m.Product = []string{"a", "b"}[i%2] }))
			want = append(want, rel.ID)
		}
		slices.Reverse(want)
		first, err := r.Releases(r.Context(), catalog.Filter{Limit: 2})
		r.must(err)
		rest, err := r.Releases(r.Context(), catalog.Filter{Before: first[1].Number, Limit: 100})
		r.must(err)
		var got []string
		for _, rel := range append(first, rest...) {
			got = append(got, rel.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		odd, err := r.Releases(r.Context(), catalog.Filter{Product: "b", State: catalog.Draft, Limit: 100})
		r.must(err)
		all, err := r.Artifacts(r.Context(), 0, 100)
		r.must(err)
		page, err := r.Artifacts(r.Context(), all[1].Number, 2)
		r.must(err)
		if len(odd) != 2 || odd[0].Version != "1.0.3" || len(all) != 5 || all[0].SHA256 != digest([]byte{4}) || len(page) != 2 || page[0].SHA256 != all[2].SHA256 {
			t.Errorf("%v %v %v", odd, all, page)
		}
	})
}
