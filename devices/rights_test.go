package devices_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster"
	"muster/devices"
)

// live stands for the broker: it asks of every change which of its connections it
// is about.
type live struct {
	connections []connection
	asked       [][]connection
}

type connection struct {
	Device     muster.DeviceID
	Credential string
}

func (l *live) affected(affects func(muster.DeviceID, string) bool) {
	var hit []connection
	for _, c := range l.connections {
		if affects(c.Device, c.Credential) {
			hit = append(hit, c)
		}
	}
	l.asked = append(l.asked, hit)
}

// want checks that there was one change since the last call, and which connections
// it was about.
func (l *live) want(t testing.TB, want ...connection) {
	t.Helper()
	if len(l.asked) != 1 || !slices.Equal(l.asked[0], want) {
		t.Errorf("changes were about %v, want one about %v", l.asked, want)
	}
	l.asked = nil
}

// wantNone checks that there was no change.
func (l *live) wantNone(t testing.TB) {
	t.Helper()
	if len(l.asked) != 0 {
		t.Errorf("changes were about %v, want none", l.asked)
	}
	l.asked = nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatAProfileMayHave(t *testing.T) {
	long := strings.Repeat("x", muster.MaxFilter-muster.MaxDeviceID)
	tests := []struct {
		name    string
		profile devices.Profile
		says    string // empty when it may
	}{
		{"nothing but a name", devices.Profile{Name: "p"}, ""},
		{"all there is", devices.Profile{
			Name: "A-b_c.9", Publish: []string{"fleet/{id}/#", "devices/{id}/more"}, Subscribe: []string{"fleet/#", "$SYS/broker/+", "devices/+/telemetry/#"},
			Level: "stored", MessageRate: 10, ByteRate: 1 << 20,
		}, ""},
		{"{id} in a part of a level", devices.Profile{Name: "p", Publish: []string{"x-{id}"}}, ""},
		{"{id} that fits with the longest id", devices.Profile{Name: "p", Publish: []string{long + "{id}"}}, ""},
		{"{id} that does not", devices.Profile{Name: "p", Publish: []string{long + "x{id}"}}, "publish[0]: a topic filter has at most"},
		{"no name", devices.Profile{}, "name"},
		{"a name with a slash", devices.Profile{Name: "a/b"}, "name"},
		{"a name of 65 bytes", devices.Profile{Name: strings.Repeat("n", 65)}, "name"},
		{"the name ..", devices.Profile{Name: ".."}, "name"},
		{"publishing to all devices", devices.Profile{Name: "p", Publish: []string{"devices/+/telemetry"}}, "publish[0]: below devices/"},
		{"publishing to another device", devices.Profile{Name: "p", Publish: []string{"ok", "devices/other/telemetry"}}, "publish[1]: below devices/"},
		{"publishing to a device whose name begins with one's own", devices.Profile{Name: "p", Publish: []string{"devices/{id}x/telemetry"}}, "publish[0]: below devices/"},
		{"publishing below devices by #", devices.Profile{Name: "p", Publish: []string{"devices/#"}}, "publish[0]: below devices/"},
		{"publishing to devices itself", devices.Profile{Name: "p", Publish: []string{"devices"}}, "publish[0]: below devices/"},
		{"publishing to everything", devices.Profile{Name: "p", Publish: []string{"#"}}, "publish[0]: begins with a wildcard"},
		{"publishing to devices by +", devices.Profile{Name: "p", Publish: []string{"+/other/telemetry"}}, "publish[0]: begins with a wildcard"},
		{"publishing to devices/me", devices.Profile{Name: "p", Publish: []string{"devices/me/x"}}, "publish[0]: me stands for"},
		{"publishing to $SYS", devices.Profile{Name: "p", Publish: []string{"$SYS/x"}}, "publish[0]: topics that begin with $"},
		{"subscribing to $share", devices.Profile{Name: "p", Subscribe: []string{"$share/g/#"}}, "subscribe[0]: topics that begin with $"},
		{"another placeholder", devices.Profile{Name: "p", Subscribe: []string{"a/{ID}"}}, "subscribe[0]: the only placeholder"},
		{"a broken filter", devices.Profile{Name: "p", Subscribe: []string{"a/#/b"}}, "subscribe[0]: #"},
		{"33 filters", devices.Profile{Name: "p", Subscribe: make([]string, 33)}, "subscribe has 33 filters"},
		{"an unknown level", devices.Profile{Name: "p", Level: "maybe"}, "level"},
		{"a negative rate", devices.Profile{Name: "p", MessageRate: -1}, "message rate"},
		{"too high a byte rate", devices.Profile{Name: "p", ByteRate: devices.MaxByteRate + 1}, "byte rate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory()
			r := open(t, m, devices.Options{})
			err := r.PutProfile(t.Context(), tt.profile)
			if tt.says != "" {
				wantKind(t, err, muster.Invalid)
				if err != nil && !strings.Contains(err.Error(), tt.says) {
					t.Errorf("it says %q, want %q", err, tt.says)
				}
				if len(m.profiles) != 0 || len(r.Profiles()) != 1 {
					t.Error("the profile is kept")
				}
				return
			}
			must(t, err)
			for _, r := range []*devices.Registry{r, open(t, m, devices.Options{})} {
				got, err := r.Profile(tt.profile.Name)
				must(t, err)
				if d := cmp.Diff(tt.profile, got, cmpopts.EquateEmpty()); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

func TestTheDefaultProfileIsThereAddsNothingAndStaysSo(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	mustCreate(t, r, devices.Spec{ID: "a"})
	d, err := r.Get("a")
	must(t, err)
	rights, err := r.Rights("a")
	must(t, err)
	if d.Profile != "default" || len(rights.Publish)+len(rights.Subscribe) != 0 {
		t.Errorf("the device is %+v with rights %v", d, rights)
	}
	wantKind(t, r.PutProfile(t.Context(), devices.Profile{Name: "default", Subscribe: []string{"#"}}), muster.Conflict)
	wantKind(t, r.DeleteProfile(t.Context(), "default"), muster.Conflict)
	if got := r.Profiles(); !cmp.Equal(got, []devices.Profile{{Name: "default"}}) {
		t.Errorf("the profiles are %v", got)
	}
}

func TestAChangedProfileIsToldOfAllItsDevicesAndOfNoOther(t *testing.T) {
	l := &live{connections: []connection{{"a", "1"}, {"a", "2"}, {"b", "3"}, {"", "key_x"}}}
	r := open(t, newMemory(), devices.Options{OnRights: l.affected})
	p := devices.Profile{Name: "p", Publish: []string{"x/{id}", "y"}, Subscribe: []string{"z/#"}, MessageRate: 5, ByteRate: 6}
	must(t, r.PutProfile(t.Context(), p))
	mustCreate(t, r, devices.Spec{ID: "a", Profile: "p"})
	mustCreate(t, r, devices.Spec{ID: "b"})
	l.wantNone(t)
	rights, err := r.Rights("a")
	must(t, err)
	if d := cmp.Diff(devices.Rights{Publish: []string{"x/a", "y"}, Subscribe: []string{"z/#"}, MessageRate: 5, ByteRate: 6}, rights); d != "" {
		t.Error(d)
	}
	p.Publish[0] = "changed by the caller" // and not by PutProfile
	p.Subscribe = nil
	must(t, r.PutProfile(t.Context(), devices.Profile{Name: "p", Publish: []string{"new/{id}"}}))
	l.want(t, connection{"a", "1"}, connection{"a", "2"})
	if rights, _ = r.Rights("a"); !cmp.Equal(rights, devices.Rights{Publish: []string{"new/a"}}) {
		t.Errorf("the rights are %v", rights)
	}
	wantKind(t, r.DeleteProfile(t.Context(), "p"), muster.Conflict)
	must(t, r.SetProfile(t.Context(), "b", "p"))
	l.want(t, connection{"b", "3"})
	must(t, r.SetProfile(t.Context(), "b", "p"))
	l.wantNone(t)
	for _, id := range []muster.DeviceID{"a", "b"} {
		must(t, r.SetProfile(t.Context(), id, ""))
	}
	l.asked = nil
	must(t, r.DeleteProfile(t.Context(), "p"))
	wantKind(t, r.DeleteProfile(t.Context(), "p"), muster.NotFound)
	wantKind(t, r.SetProfile(t.Context(), "a", "p"), muster.Invalid)
	wantKind(t, r.SetProfile(t.Context(), "nobody", "default"), muster.NotFound)
	_, err = r.Profile("p")
	wantKind(t, err, muster.NotFound)
	l.wantNone(t)
}

func TestAProfileIsSharedByItsDevicesWhereItCanBe(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	must(t, r.PutProfile(t.Context(), devices.Profile{Name: "p", Publish: []string{"a", "b"}, Subscribe: []string{"c"}}))
	mustCreate(t, r, devices.Spec{ID: "a", Profile: "p"})
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Rights("a"); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("rights without {id} cost %v allocations, want none", n)
	}
}

func TestThereIsABoundOnProfiles(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	for i := range devices.MaxProfiles - 1 {
		must(t, r.PutProfile(t.Context(), devices.Profile{Name: fmt.Sprintf("p%d", i)}))
	}
	wantKind(t, r.PutProfile(t.Context(), devices.Profile{Name: "one-more"}), muster.Conflict)
	must(t, r.PutProfile(t.Context(), devices.Profile{Name: "p0", Level: "stored"}))
}

func TestACredentialIsRefreshedUntilItIsGone(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	must(t, r.PutProfile(t.Context(), devices.Profile{Name: "p", Publish: []string{"x/{id}"}}))
	_, first, err := r.Create(t.Context(), devices.Spec{ID: "a", Profile: "p", Credential: devices.Secret})
	must(t, err)
	second, err := r.AddCredential(t.Context(), "a", devices.Token, "")
	must(t, err)
	mustCreate(t, r, devices.Spec{ID: "b", Credential: devices.Secret})
	rights, err := r.Refresh("a", first.ID)
	must(t, err)
	if !cmp.Equal(rights, devices.Rights{Publish: []string{"x/a"}}) {
		t.Errorf("the rights are %v", rights)
	}
	for _, c := range []connection{{"b", first.ID}, {"a", ""}, {"a", "cred_x"}, {"nobody", first.ID}} {
		_, err := r.Refresh(c.Device, c.Credential)
		wantKind(t, err, muster.Unauthorized)
	}
	must(t, r.RemoveCredential(t.Context(), "a", first.ID))
	_, err = r.Refresh("a", first.ID)
	wantKind(t, err, muster.Unauthorized)
	_, err = r.Refresh("a", second.ID)
	must(t, err)
	must(t, r.Delete(t.Context(), "a", devices.KeepData))
	mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Secret})
	_, err = r.Refresh("a", second.ID)
	wantKind(t, err, muster.Unauthorized)
}

func TestOfTwoSecretsTheOnePresentedIsNamed(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	mustCreate(t, r, devices.Spec{ID: "a"})
	for range devices.MaxCredentials / 2 {
		is, err := r.AddCredential(t.Context(), "a", devices.Secret, "")
		must(t, err)
		other, err := r.AddCredential(t.Context(), "a", devices.Secret, "")
		must(t, err)
		for _, i := range []devices.Issued{is, other} {
			if _, cred, err := r.Authenticate("a", []byte(i.Password)); err != nil || cred != i.ID {
				t.Errorf("the secret is named %q, %v; want %q", cred, err, i.ID)
			}
		}
	}
}

func TestAGatewayTakesOnlyADeviceThatHasNoCredentialAndNoParent(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	for _, id := range []muster.DeviceID{"g", "h", "free", "own"} {
		mustCreate(t, r, devices.Spec{ID: id})
	}
	_, err := r.AddCredential(t.Context(), "own", devices.Token, "")
	must(t, err)
	must(t, r.TakeChild(t.Context(), "free", "g"))
	wantKind(t, r.TakeChild(t.Context(), "free", "h"), muster.Forbidden)
	wantKind(t, r.TakeChild(t.Context(), "own", "g"), muster.Forbidden)
	wantKind(t, r.TakeChild(t.Context(), "nobody", "g"), muster.NotFound)
	if r.Parent("free") != "g" || r.Parent("own") != "" {
		t.Errorf("free belongs to %q, own to %q", r.Parent("free"), r.Parent("own"))
	}
}

func TestAParentMustBeThereAndNoFamilyIsDeepOrRound(t *testing.T) {
	l := &live{connections: []connection{{"g", "1"}, {"h", "2"}, {"c", "3"}, {"", "key"}}}
	r := open(t, newMemory(), devices.Options{OnRights: l.affected})
	for _, id := range []muster.DeviceID{"g", "h", "c", "x"} {
		mustCreate(t, r, devices.Spec{ID: id})
	}
	must(t, r.SetParent(t.Context(), "c", "g"))
	l.want(t, connection{"g", "1"})
	must(t, r.SetParent(t.Context(), "c", "h"))
	l.want(t, connection{"g", "1"}, connection{"h", "2"})
	if r.Parent("c") != "h" || r.Parent("h") != "" || r.Parent("nobody") != "" {
		t.Errorf("c belongs to %q, h to %q", r.Parent("c"), r.Parent("h"))
	}
	wantKind(t, r.SetParent(t.Context(), "c", "nobody"), muster.Invalid)
	wantKind(t, r.SetParent(t.Context(), "nobody", "c"), muster.NotFound)
	wantKind(t, r.SetParent(t.Context(), "c", "c"), muster.Conflict)
	wantKind(t, r.SetParent(t.Context(), "h", "c"), muster.Conflict)
	must(t, r.SetParent(t.Context(), "h", "g"))
	must(t, r.SetParent(t.Context(), "x", "c"))
	wantKind(t, r.SetParent(t.Context(), "g", "x"), muster.Conflict) // g <- h <- c <- x
	for _, s := range []devices.Spec{{ID: "y", Parent: "x"}, {ID: "p1"}, {ID: "p2", Parent: "p1"}} {
		mustCreate(t, r, s)
	}
	_, _, err := r.Create(t.Context(), devices.Spec{ID: "z", Parent: "y"})
	wantKind(t, err, muster.Conflict)
	wantKind(t, r.SetParent(t.Context(), "g", "p1"), muster.Conflict)
	_, _, err = r.Create(t.Context(), devices.Spec{ID: "z", Parent: "nobody"})
	wantKind(t, err, muster.Invalid)
	_, _, err = r.Create(t.Context(), devices.Spec{ID: "z", Profile: "nothing"})
	wantKind(t, err, muster.Invalid)
	l.asked = nil
	must(t, r.Delete(t.Context(), "h", devices.KeepData))
	l.want(t, connection{"g", "1"}, connection{"h", "2"})
	children, err := r.Children("g")
	must(t, err)
	if r.Parent("c") != "" || len(children) != 0 {
		t.Errorf("after the parent was deleted c belongs to %q, and g has %v", r.Parent("c"), children)
	}
	_, err = r.Children("h")
	wantKind(t, err, muster.NotFound)
}

func TestABatchMayBringParentsAndChildrenInAnyOrder(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	_, _, err := r.CreateMany(t.Context(), []devices.Spec{{ID: "c", Parent: "b"}, {ID: "a"}, {ID: "b", Parent: "a"}})
	must(t, err)
	for _, r := range []*devices.Registry{r, open(t, m, devices.Options{})} {
		got, err := r.Children("a")
		must(t, err)
		if r.Parent("c") != "b" || !cmp.Equal(got, []muster.DeviceID{"b"}) {
			t.Errorf("c belongs to %q, a has %v", r.Parent("c"), got)
		}
	}
	for _, specs := range [][]devices.Spec{
		{{ID: "x", Parent: "y"}, {ID: "y", Parent: "x"}},
		{{ID: "x", Parent: "x"}},
		{{ID: "x", Parent: "c"}, {ID: "y", Parent: "x"}, {ID: "z", Parent: "y"}},
	} {
		_, _, err := r.CreateMany(t.Context(), specs)
		wantKind(t, err, muster.Conflict)
	}
	if r.Count() != 3 || len(m.devices) != 3 {
		t.Errorf("%d devices, want 3", r.Count())
	}
}

func TestAnInconsistentStoreGivesNoRights(t *testing.T) {
	m := newMemory()
	for id, d := range map[muster.DeviceID]devices.Device{
		"round1": {Parent: "round2", Profile: "gone"}, "round2": {Parent: "round1", Profile: "default"},
		"orphan": {Parent: "nobody"}, "zed": {Parent: "round1", Profile: "default"},
	} {
		d.ID = id
		m.devices[id] = d
	}
	r := open(t, m, devices.Options{})
	d, err := r.Get("round1")
	must(t, err)
	if d.Profile != "default" || r.Parent("round1") != "" || r.Parent("round2") != "round1" || r.Parent("orphan") != "" || r.Parent("zed") != "round1" {
		t.Errorf("round1 is %+v, round2 belongs to %q, orphan to %q, zed to %q", d, r.Parent("round2"), r.Parent("orphan"), r.Parent("zed"))
	}
}

func TestAFailingStoreChangesNoRights(t *testing.T) {
	m := newMemory()
	l := &live{connections: []connection{{"a", "1"}, {"g", "2"}}}
	r := open(t, m, devices.Options{OnRights: l.affected})
	must(t, r.PutProfile(t.Context(), devices.Profile{Name: "p"}))
	mustCreate(t, r, devices.Spec{ID: "a", Profile: "p"})
	mustCreate(t, r, devices.Spec{ID: "g"})
	before := r.Profiles()
	m.setDown(true)
	for what, err := range map[string]error{
		"put a profile":    r.PutProfile(t.Context(), devices.Profile{Name: "p", Publish: []string{"x"}}),
		"delete a profile": r.DeleteProfile(t.Context(), "p"),
		"set a parent":     r.SetParent(t.Context(), "a", "g"),
		"set a profile":    r.SetProfile(t.Context(), "a", "default"),
	} {
		if err == nil {
			t.Errorf("%s succeeded without a store", what)
		}
	}
	d, _ := r.Get("a")
	if d.Profile != "p" || d.Parent != "" || !cmp.Equal(before, r.Profiles()) {
		t.Errorf("memory changed: %+v %v", d, r.Profiles())
	}
	l.wantNone(t)
}

// TestFamiliesAndProfilesModel does random changes to few devices and holds the
// registry to what a plain map says, also after each restart.
func TestFamiliesAndProfilesModel(t *testing.T) {
	ids := []muster.DeviceID{"a", "b", "c", "d", "e", "f", "g"}
	names := []string{"default", "p", "q"}
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		r := open(t, m, devices.Options{})
		ctx := context.Background()
		model := map[muster.DeviceID]devices.Change{}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			id := rapid.SampledFrom(ids).Draw(rt, "id")
			parent := rapid.SampledFrom(append(ids, "")).Draw(rt, "parent")
			name := rapid.SampledFrom(names).Draw(rt, "profile")
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				if _, _, err := r.Create(ctx, devices.Spec{ID: id, Parent: parent, Profile: name}); err == nil {
					model[id] = devices.Change{Profile: &name, Parent: &parent}
				}
			case 1:
				if r.Delete(ctx, id, devices.KeepData) == nil {
					delete(model, id)
					for child, c := range model {
						if *c.Parent == id {
							c.Parent = new(muster.DeviceID)
							model[child] = c
						}
					}
				}
			case 2:
				if _, err := r.Update(ctx, id, devices.Change{Parent: &parent, Profile: &name}); err == nil {
					model[id] = devices.Change{Profile: &name, Parent: &parent}
				}
			case 3:
				_ = r.PutProfile(ctx, devices.Profile{Name: name}) // the default one is refused
			case 4:
				err := r.DeleteProfile(ctx, name)
				for _, c := range model {
					if err == nil && *c.Profile == name {
						rt.Fatalf("profile %s is deleted while a device has it", name)
					}
				}
			case 5:
				r = open(t, m, devices.Options{})
			}
			checkFamilies(rt, r, m, model)
		}
	})
}

func checkFamilies(rt *rapid.T, r *devices.Registry, m *memory, model map[muster.DeviceID]devices.Change) {
	if r.Count() != len(model) || len(m.devices) != len(model) {
		rt.Fatalf("%d devices, %d stored, want %d", r.Count(), len(m.devices), len(model))
	}
	for id, c := range model {
		d, err := r.Get(id)
		if err != nil || d.Profile != *c.Profile || d.Parent != *c.Parent || r.Parent(id) != *c.Parent || m.devices[id] != d {
			rt.Fatalf("%s is %+v and stored as %+v, want profile %s and parent %q (%v)", id, d, m.devices[id], *c.Profile, *c.Parent, err)
		}
		if _, err := r.Profile(d.Profile); err != nil {
			rt.Fatalf("%s has a profile that is not there", id)
		}
		n := 0
		for up := d.Parent; up != ""; up = r.Parent(up) {
			if n++; n > devices.MaxDepth {
				rt.Fatalf("%s has more than %d ancestors", id, devices.MaxDepth)
			}
		}
		var want []muster.DeviceID
		for child, c := range model {
			if *c.Parent == id {
				want = append(want, child)
			}
		}
		slices.Sort(want)
		if got, err := r.Children(id); err != nil || !slices.Equal(got, want) {
			rt.Fatalf("%s has children %v, want %v (%v)", id, got, want, err)
		}
	}
}

func BenchmarkLoad100kDevicesOf250Gateways(b *testing.B) {
	m := newMemory()
	for i := range 100_000 {
		id := muster.DeviceID(fmt.Sprintf("device-%06d", i))
		d := devices.Device{ID: id, Profile: "default"}
		if i%400 != 0 {
			d.Parent = muster.DeviceID(fmt.Sprintf("device-%06d", i/400*400))
		}
		m.devices[id] = d
	}
	b.ReportAllocs()
	for b.Loop() {
		open(b, m, devices.Options{})
	}
}

func BenchmarkRefreshAmong100kDevices(b *testing.B) {
	r, _ := filled(b, 100_000)
	cs, err := r.Credentials("device-050000")
	must(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Refresh("device-050000", cs[0].ID); err != nil {
			b.Fatal(err)
		}
	}
}

func TestWhoHasBecomeAChildIsToldOf(t *testing.T) {
	var told [][]muster.DeviceID
	r := open(t, newMemory(), devices.Options{OnChildren: func(ids []muster.DeviceID) { told = append(told, slices.Clone(ids)) }})
	for _, id := range []muster.DeviceID{"g", "h", "c"} {
		mustCreate(t, r, devices.Spec{ID: id})
	}
	mustCreate(t, r, devices.Spec{ID: "born", Parent: "g"})
	must(t, r.SetParent(t.Context(), "c", "g"))
	must(t, r.SetParent(t.Context(), "c", "g"))
	must(t, r.SetParent(t.Context(), "c", "h"))
	must(t, r.SetParent(t.Context(), "c", ""))
	if d := cmp.Diff([][]muster.DeviceID{{"born"}, {"c"}, {"c"}}, told); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
