package ddi_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/api/ddi"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

func TestWhoMayAskForADevice(t *testing.T) {
	const gate = "gateway-token-of-the-yard"
	r := newRig(t, func(c *ddi.Config) { c.Gateway = ddi.Gateway{Token: gate, Group: "yard"} })
	const elsewhere = "/default/controller/v1/" + string(other)
	for name, c := range map[string]struct {
		path, auth string
		want       int
	}{
		"its own token":                     {home, "TargetToken " + token, 200},
		"the word in another case":          {home, "targettoken " + token, 200},
		"another device's token":            {home, "TargetToken " + another, 401},
		"no device's token":                 {home, "TargetToken nothing", 401},
		"no token":                          {home, "TargetToken ", 401},
		"nothing":                           {home, "", 401},
		"another word":                      {home, "Bearer " + token, 401},
		"the device's id as its token":      {home, "TargetToken " + string(dev), 401},
		"the gateway of its group":          {home, "GatewayToken " + gate, 200},
		"the gateway of another group":      {elsewhere, "GatewayToken " + gate, 404},
		"the gateway, and no such device":   {"/default/controller/v1/nobody", "GatewayToken " + gate, 404},
		"another gateway":                   {home, "GatewayToken gateway-token-of-nobody", 401},
		"a device's token as the gateway's": {home, "GatewayToken " + token, 401},
		"hawkBit's spelling of the tenant":  {"/DEFAULT/controller/v1/" + string(dev), "TargetToken " + token, 200},
		"another tenant":                    {"/acme/controller/v1/" + string(dev), "TargetToken " + token, 404},
		"another version":                   {"/default/controller/v2/" + string(dev), "TargetToken " + token, 404},
		"no device":                         {"/default/controller/v1/", "TargetToken " + token, 404},
		"what is no id":                     {"/default/controller/v1/a%2F..%2Fb", "TargetToken " + token, 404},
	} {
		t.Run(name, func(t *testing.T) {
			a := r.do("GET", c.path, "", "Authorization: "+c.auth)
			if a.status != c.want {
				t.Errorf("it is answered %d %s, want %d", a.status, a.body, c.want)
			}
			if (a.status == 401) != (a.header.Get("WWW-Authenticate") != "") {
				t.Errorf("WWW-Authenticate is %q", a.header.Get("WWW-Authenticate"))
			}
		})
	}
	plain := newRig(t)
	if a := plain.do("GET", home, "", "Authorization: GatewayToken "); a.status != 401 {
		t.Errorf("without a gateway token an empty one is answered %d", a.status)
	}
}

func TestSettingsThatCannotWorkAreRefused(t *testing.T) {
	for name, s := range map[string]ddi.Settings{
		"another confirmation":       {Confirm: "hope"},
		"a poll each other day":      {Idle: 48 * time.Hour},
		"a poll in no time":          {Busy: time.Millisecond},
		"a tenant of two parts":      {Tenant: "a/b"},
		"an address without a host":  {URL: "http://"},
		"an address with a slash":    {URL: "https://h.example/"},
		"a short gateway token":      {Gateway: ddi.Gateway{Token: "short", Group: "yard"}},
		"a gateway token for nobody": {Gateway: ddi.Gateway{Token: "gateway-token-of-nobody"}},
		"a group without a token":    {Gateway: ddi.Gateway{Group: "yard"}},
	} {
		if err := s.Check(); muster.KindOf(err) != muster.Invalid || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (&ddi.Settings{}).Check(); err != nil {
		t.Error(err)
	}
}

func TestAPollSaysWhatThereIsToDo(t *testing.T) {
	r := newRig(t)
	a := r.do("GET", home, "")
	if got, want := a.header.Get("Content-Type"), "application/hal+json;charset=UTF-8"; got != want {
		t.Errorf("the content is %q", got)
	}
	if a = r.do("GET", home, "", "Accept: application/json"); a.header.Get("Content-Type") != "application/json;charset=UTF-8" {
		t.Errorf("the content is %q for who asks for JSON", a.header.Get("Content-Type"))
	}
	sleep := func() string {
		return r.do("GET", home, "").json(t)["config"].(map[string]any)["polling"].(map[string]any)["sleep"].(string)
	}
	if s := sleep(); s < "00:04:00" || s > "00:06:00" {
		t.Errorf("a device with nothing to do sleeps %s", s)
	}
	r.soon = true
	if s := sleep(); s != "00:00:15" {
		t.Errorf("a device for which something waits sleeps %s", s)
	}
	r.soon = false
	base := r.url + home
	if d := cmp.Diff(map[string]string{"configData": base + "/configData"}, r.links()); d != "" {
		t.Error(d)
	}
	if a := r.do("PUT", home+"/configData", `{"mode":"replace","data":{"fw":"1.0.0"}}`); a.status != 200 || len(a.body) > 0 {
		t.Errorf("its attributes are answered %d %s", a.status, a.body)
	}
	if d := cmp.Diff([]string{`dev-001 replace {"fw":"1.0.0"}`}, r.attributes.list); d != "" {
		t.Error(d)
	}
	if l := r.links(); len(l) != 0 {
		t.Errorf("with nothing to do the links are %v", l)
	}
	action := r.roll()
	l := r.links()
	if !strings.HasPrefix(l["deploymentBase"], fmt.Sprintf("%s/deploymentBase/%d?c=", base, action)) || len(l) != 1 {
		t.Errorf("with an offer the links are %v", l)
	}
	if s := sleep(); s != "00:00:15" {
		t.Errorf("a device with something to do sleeps %s", s)
	}
	r.pause()
	if d := cmp.Diff(map[string]string{"cancelAction": fmt.Sprintf("%s/cancelAction/%d", base, action)}, r.links()); d != "" {
		t.Error(d)
	}
	if len(r.asked) == 0 || <-r.asked != dev {
		t.Error("nobody is told that the device asked")
	}
}

func TestAPollThatChangedNothingIsNotSentTwice(t *testing.T) {
	r := newRig(t)
	tag := r.do("GET", home, "").header.Get("ETag")
	for header, want := range map[string]int{tag: 304, `"x", W/` + tag: 304, "*": 304, `"x"`: 200} {
		if a := r.do("GET", home, "", "If-None-Match: "+header); a.status != want || want == 304 && len(a.body) > 0 {
			t.Errorf("If-None-Match %s is answered %d", header, a.status)
		}
	}
	r.roll()
	if a := r.do("GET", home, "", "If-None-Match: "+tag); a.status != 200 || a.header.Get("ETag") == tag {
		t.Errorf("a poll with news is answered %d", a.status)
	}
}

func TestADeploymentHasTheTypesThatClientsAssert(t *testing.T) {
	r := newRig(t)
	action := r.roll()
	// As a client that spells the tenant as hawkBit does: Zephyr's finds its own path in the address.
	a := r.do("GET", fmt.Sprintf("/DEFAULT/controller/v1/%s/deploymentBase/%d?c=1", dev, action), "")
	if a.status != 200 || a.header.Get("Content-Length") == "" {
		t.Fatalf("the deployment is %d %s, %v", a.status, a.body, a.header)
	}
	f := r.shelf.release.Files[0]
	at := fmt.Sprintf("%s/DEFAULT/controller/v1/%s/softwaremodules/%d/artifacts/%s", r.url, dev, action, f.Filename)
	href := func(s string) map[string]any { return map[string]any{"href": s} }
	want := map[string]any{"id": fmt.Sprint(action), "deployment": map[string]any{
		"download": "forced", "update": "forced", "chunks": []any{map[string]any{
			"part": "bApp", "version": "2.0.0", "name": "pump", "artifacts": []any{map[string]any{
				"filename": f.Filename, "size": float64(f.Size), "hashes": map[string]any{"sha1": f.SHA1, "md5": f.MD5, "sha256": f.SHA256},
				"_links": map[string]any{"download": href(at), "download-http": href(at), "md5sum": href(at + ".MD5SUM"), "md5sum-http": href(at + ".MD5SUM")},
			}},
		}},
	}}
	if d := cmp.Diff(want, a.json(t)); d != "" {
		t.Error(d)
	}
	b := r.do("GET", fmt.Sprintf("%s/deploymentBase/%d?actionHistory=-1", home, action), "").json(t)
	if d := cmp.Diff(map[string]any{"status": "RETRIEVED", "messages": []any{"queued -> offered"}}, b["actionHistory"]); d != "" {
		t.Error(d)
	}
	for _, path := range []string{"deploymentBase/1", "deploymentBase/x", "deploymentBase/-1", "deploymentBase/99999999999", "cancelAction/" + fmt.Sprint(action), "installedBase/" + fmt.Sprint(action)} {
		if a := r.do("GET", home+"/"+path, ""); a.status != 404 {
			t.Errorf("%s is answered %d", path, a.status)
		}
	}
	theirs := fmt.Sprintf("/default/controller/v1/%s/deploymentBase/%d", other, action)
	if a := r.do("GET", theirs, "", "Authorization: TargetToken "+another); a.status != 404 {
		t.Errorf("another device's action is answered %d", a.status)
	}
}

func TestAnImageIsFoundByItsNameOnlyAndSentWithItsRanges(t *testing.T) {
	r := newRig(t)
	action := r.roll()
	f := r.shelf.release.Files[0]
	module := fmt.Sprintf("%s/softwaremodules/%d/artifacts", home, action)
	whole := r.do("GET", module+"/"+f.Filename, "")
	if whole.status != 200 || int64(len(whole.body)) != f.Size {
		t.Fatalf("the image is %d, %d bytes", whole.status, len(whole.body))
	}
	part := r.do("GET", module+"/"+f.Filename, "", "Range: bytes=1000-")
	if part.status != 206 || !bytes.Equal(part.body, whole.body[1000:]) {
		t.Errorf("its rest is %d, %d bytes", part.status, len(part.body))
	}
	if a := r.do("HEAD", module+"/"+f.Filename, ""); a.status != 200 || a.header.Get("Content-Length") != fmt.Sprint(f.Size) {
		t.Errorf("its head is %d, %v", a.status, a.header)
	}
	if a := r.do("GET", module+"/"+f.Filename+".MD5SUM", ""); string(a.body) != f.MD5+"  "+f.Filename {
		t.Errorf("its digest is %d %q", a.status, a.body)
	}
	if a := r.do("GET", module, ""); a.status != 200 || !strings.Contains(string(a.body), f.SHA256) {
		t.Errorf("the list is %d %s", a.status, a.body)
	}
	r.must(os.WriteFile(r.shelf.dir+"/secret", []byte("secret"), 0o600))
	for _, path := range []string{
		module + "/secret", module + "/..%2Fsecret", module + "/" + f.SHA256, module + "/", module + "/.MD5SUM", module + "/x/y",
		home + "/softwaremodules/1/artifacts/" + f.Filename, home + "/softwaremodules/x/artifacts", home + "/softwaremodules/" + fmt.Sprint(action),
	} {
		if a := r.do("GET", path, ""); a.status != 404 || strings.Contains(string(a.body), "secret") {
			t.Errorf("%s is answered %d %s", path, a.status, a.body)
		}
	}
	theirs := strings.Replace(module, string(dev), string(other), 1) + "/" + f.Filename
	if a := r.do("GET", theirs, "", "Authorization: TargetToken "+another); a.status != 404 {
		t.Errorf("another device's image is answered %d", a.status)
	}
	r.pause()
	if a := r.do("GET", module+"/"+f.Filename, ""); a.status != 404 {
		t.Errorf("the image of what was taken back is answered %d", a.status)
	}
}

func TestAnUpdateIsConfirmedByTheVersionAndNotByTheDevicesWord(t *testing.T) {
	r := newRig(t)
	r.do("PUT", home+"/configData", `{"data":{"fw":"1.0.0"}}`)
	action := r.roll()
	feedback := fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action)
	image := fmt.Sprintf("%s/softwaremodules/%d/artifacts/%s", home, action, r.shelf.release.Files[0].Filename)
	r.says(200, feedback, "scheduled", "none", "")
	r.is(rollout.Offered)
	r.says(200, feedback, "proceeding", "none", "")
	r.is(rollout.Downloading)
	r.do("GET", image, "")
	r.is(rollout.Downloading)
	r.says(200, feedback, "proceeding", "none", "")
	r.is(rollout.Installing)
	r.says(200, feedback, "closed", "success", `,"details":["done"]`)
	r.is(rollout.Rebooting)
	if l := r.links(); len(l) != 0 {
		t.Errorf("right after it installed the links are %v", l)
	}
	r.add(time.Minute)
	if l := r.links(); l["configData"] == "" || l["deploymentBase"] != "" {
		t.Errorf("when it may run the release the links are %v", l)
	}
	r.do("PUT", home+"/configData", `{"data":{"fw":"2.0.0"}}`)
	if l := r.links(); len(l) != 0 {
		t.Errorf("after it told its attributes the links are %v", l)
	}
	r.must(r.desk.Report(t.Context(), reportOf(rollout.Fact{Event: rollout.SeesTarget})))
	r.add(time.Hour)
	r.tick()
	r.is(rollout.Confirmed)
	l := r.links()
	if l["installedBase"] != fmt.Sprintf("%s%s/installedBase/%d", r.url, home, action) {
		t.Errorf("with a release installed the links are %v", l)
	}
	if a := r.do("GET", l["installedBase"], ""); a.status != 200 || a.json(t)["id"] != fmt.Sprint(action) {
		t.Errorf("what is installed is answered %d %s", a.status, a.body)
	}
	r.says(410, feedback, "closed", "success", "")
	r.says(410, feedback, "proceeding", "none", "")
}

func TestADevicesWordIsAConfirmationWhereTheServerTrustsIt(t *testing.T) {
	r := newRig(t, func(c *ddi.Config) { c.Confirm = ddi.ByDDI })
	action := r.roll()
	r.says(200, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action), "closed", "success", "")
	r.is(rollout.Rebooting)
	r.add(time.Hour)
	r.tick()
	r.is(rollout.Confirmed)
}

// TestADevicesWordThatItHasInstalledWhatIsOverIsNotedAsLate: what was taken back, and when it has the next action already. It is
// no confirmation, of either.
func TestADevicesWordThatItHasInstalledWhatIsOverIsNotedAsLate(t *testing.T) {
	for name, c := range map[string]struct {
		next bool
		by   ddi.Confirm
		want rollout.Late
		code int
	}{
		"taken back":                      {false, ddi.ByDDI, rollout.LateInstalled, 200},
		"another is offered":              {true, ddi.ByDDI, rollout.LateInstalled, 410},
		"another, its word counts not":    {true, ddi.ByVersion, "", 410},
		"taken back, its word counts not": {false, ddi.ByVersion, "", 200},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(x *ddi.Config) { x.Confirm = c.by })
			old := r.roll()
			r.pause()
			if c.next {
				if next := r.rollAs("next"); next == old {
					t.Fatal("there is no next action")
				}
			}
			for range 2 { // the answer may be lost
				r.says(c.code, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, old), "closed", "success", "")
				c.code = 410
			}
			x, err := r.store.Rollout(t.Context(), "r")
			r.must(err)
			late := map[bool]int{true: 1}[c.want != ""]
			if x.Counts[0].Late != late || x.Counts[0].By[rollout.Confirmed] != 0 {
				t.Errorf("%d are late, want %d: %+v", x.Counts[0].Late, late, x.Counts[0])
			}
			if c.next {
				r.is(rollout.Offered)
			}
		})
	}
}

func TestAFailureIsKeptWithItsReason(t *testing.T) {
	r := newRig(t)
	action := r.roll()
	r.says(200, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action), "closed", "failure", `,"code":5,"details":["ERROR : Checksum does not match"]`)
	if d := r.device(); d.State != rollout.Queued || !d.Failing || d.Detail != "code 5; ERROR : Checksum does not match" {
		t.Errorf("the device is %s, failing %v, for %q", d.State, d.Failing, d.Detail)
	}
}

func TestFeedbackThatIsNotOfTheCurrentActionIsGone(t *testing.T) {
	r := newRig(t)
	action := r.roll()
	ours := fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action)
	r.says(410, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action+1), "closed", "success", "")
	r.says(410, fmt.Sprintf("%s/cancelAction/%d/feedback", home, action), "closed", "success", "")
	theirs := fmt.Sprintf("/default/controller/v1/%s/deploymentBase/%d/feedback", other, action)
	body := `{"status":{"execution":"closed","result":{"finished":"failure"}}}`
	if a := r.do("POST", theirs, body, "Authorization: TargetToken "+another); a.status != 410 {
		t.Errorf("feedback about another device's action is answered %d", a.status)
	}
	r.is(rollout.Offered)
	for name, c := range map[string]struct {
		method, body string
		want         int
		header       string
	}{
		"no JSON":          {"POST", "{", 400, ""},
		"no body":          {"POST", "", 400, ""},
		"65 KiB":           {"POST", `{"x":"` + strings.Repeat("x", 65<<10) + `"}`, 413, ""},
		"CBOR":             {"POST", "\xa0", 415, "Content-Type: application/cbor"},
		"a GET":            {"GET", "", 405, ""},
		"text/plain works": {"POST", `{"status":{"execution":"scheduled","result":{"finished":"none"}}}`, 200, "Content-Type: text/plain"},
	} {
		headers := []string{}
		if c.header != "" {
			headers = append(headers, c.header)
		}
		if a := r.do(c.method, ours, c.body, headers...); a.status != c.want {
			t.Errorf("%s is answered %d %s, want %d", name, a.status, a.body, c.want)
		}
	}
}

func TestWhatIsTakenBackIsCanceledAndTheDevicesAnswerIsTheEnd(t *testing.T) {
	for _, says := range []string{"closed success", "closed failure", "rejected success", "canceled none"} {
		t.Run(says, func(t *testing.T) {
			answer, more, _ := strings.Cut(says, " ")
			r := newRig(t)
			action := r.roll()
			r.says(200, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action), "proceeding", "none", "")
			r.pause()
			r.is(rollout.Queued)
			cancel := fmt.Sprintf("%s/cancelAction/%d", home, action)
			want := map[string]any{"id": fmt.Sprint(action), "cancelAction": map[string]any{"stopId": fmt.Sprint(action)}}
			if d := cmp.Diff(want, r.do("GET", cancel, "").json(t)); d != "" {
				t.Error(d)
			}
			r.says(200, cancel+"/feedback", "proceeding", "none", "")
			r.says(410, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action), "proceeding", "none", "")
			if l := r.links(); l["cancelAction"] == "" {
				t.Errorf("before its answer the links are %v", l)
			}
			r.says(200, cancel+"/feedback", answer, more, "")
			if l := r.links(); l["cancelAction"] != "" {
				t.Errorf("after its answer the links are %v", l)
			}
			r.says(410, cancel+"/feedback", "closed", "success", "")
			if a := r.do("GET", cancel, ""); a.status != 404 {
				t.Errorf("what the device knows is answered %d", a.status)
			}
		})
	}
}

// TestTheNextOfferTakesThePlaceOfOneThatWasTakenBack is a rollout that replaces another: its offer comes before the
// device has answered that it left the one before.
func TestTheNextOfferTakesThePlaceOfOneThatWasTakenBack(t *testing.T) {
	r := newRig(t)
	old := r.roll()
	image := fmt.Sprintf("%s/softwaremodules/%d/artifacts/%s", home, old, r.shelf.release.Files[0].Filename)
	r.says(200, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, old), "download", "none", "")
	r.pause()
	if l := r.links(); l["cancelAction"] == "" || l["deploymentBase"] != "" {
		t.Errorf("before the next offer the links are %v", l)
	}
	next := r.rollAs("r2")
	if l := r.links(); next <= old || l["cancelAction"] != "" || !strings.Contains(l["deploymentBase"], fmt.Sprintf("/deploymentBase/%d?", next)) {
		t.Errorf("with action %d after %d the links are %v", next, old, l)
	}
	for _, path := range []string{fmt.Sprintf("%s/cancelAction/%d", home, old), fmt.Sprintf("%s/deploymentBase/%d", home, old), image} {
		if a := r.do("GET", path, ""); a.status != 404 {
			t.Errorf("%s is answered %d", path, a.status)
		}
	}
	r.says(410, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, old), "closed", "failure", "")
	r.says(410, fmt.Sprintf("%s/cancelAction/%d/feedback", home, old), "closed", "success", "")
	r.is(rollout.Offered)
	r.says(200, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, next), "download", "none", "")
	r.is(rollout.Downloading)
}

func TestADeviceThatAnswersBeforeItsWithdrawnReleaseIsRecalledWaitsAndHasNotFailed(t *testing.T) {
	for _, says := range []string{"cancelAction closed success", "cancelAction closed failure", "cancelAction rejected none", "deploymentBase closed failure", "deploymentBase canceled none"} {
		t.Run(says, func(t *testing.T) {
			words := strings.Fields(says)
			r := newRig(t)
			action := r.roll()
			r.says(200, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action), "download", "none", "")
			r.shelf.withdrawn.Store(true)
			if l := r.links(); l["cancelAction"] == "" || l["deploymentBase"] != "" {
				t.Errorf("the links are %v", l)
			}
			r.is(rollout.Downloading) // nobody has recalled it
			r.says(200, fmt.Sprintf("%s/%s/%d/feedback", home, words[0], action), words[1], words[2], "")
			if l := r.links(); l["cancelAction"] != "" || l["deploymentBase"] != "" {
				t.Errorf("after its answer the links are %v", l)
			}
			r.says(410, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action), "closed", "failure", "")
			r.tick()
			if d := r.device(); d.State != rollout.Queued || d.Failures != 0 || d.Failing || d.Retries() {
				t.Errorf("recalled it is %s, and has failed %d times (%s)", d.State, d.Failures, d.Reason)
			}
			if l := r.links(); l["cancelAction"] != "" || l["deploymentBase"] != "" {
				t.Errorf("recalled the links are %v", l)
			}
		})
	}
}

func TestADeviceThatEndsWhatWasTakenBackIsNotToldToStop(t *testing.T) {
	r := newRig(t)
	action := r.roll()
	r.pause()
	r.says(200, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action), "closed", "failure", "")
	if l := r.links(); l["cancelAction"] != "" {
		t.Errorf("the links are %v", l)
	}
}

func TestAnEndlessLoopOfInstallingEndsByItself(t *testing.T) {
	r := newRig(t)
	action := r.roll()
	image := fmt.Sprintf("%s/softwaremodules/%d/artifacts/%s", home, action, r.shelf.release.Files[0].Filename)
	for range 5 { // hawkBit's issues 866 and 1190: a client that forgets that it has installed
		r.do("GET", image, "")
		r.do("POST", fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action),
			`{"status":{"execution":"proceeding","result":{"finished":"none","progress":{"cnt":1,"of":1}}}}`)
		r.add(5 * time.Second)
	}
	if d := r.device(); d.State != rollout.Failed || d.Reason != rollout.Looping {
		t.Errorf("the device is %s for %q", d.State, d.Reason)
	}
	if a := r.do("GET", image, ""); a.status != 404 {
		t.Errorf("the image is answered %d then", a.status)
	}
}

func TestManyRangesAreOneStateAndLittleProgress(t *testing.T) {
	r := newRig(t)
	action := r.roll()
	f := r.shelf.release.Files[0]
	image := fmt.Sprintf("%s/softwaremodules/%d/artifacts/%s", home, action, f.Filename)
	for at := int64(0); at < f.Size; at += 2000 {
		r.do("GET", image, "", fmt.Sprintf("Range: bytes=%d-%d", at, min(at+1999, f.Size-1)))
		r.add(200 * time.Millisecond)
	}
	if d := r.device(); d.State != rollout.Downloading || d.Progress < 80 || d.Repeats != 0 {
		t.Errorf("the device is %s at %d %%, began %d times anew", d.State, d.Progress, d.Repeats)
	}
	for range 400 { // many at once, as a device with small buffers asks
		if a := r.do("GET", image, "", "Range: bytes=100-199"); a.status != 206 {
			t.Fatalf("a range is answered %d", a.status)
		}
	}
	log, err := r.store.ActionLog(t.Context(), dev, action, 100)
	if err != nil || len(log) != 2 {
		t.Errorf("60 ranges made %d rows, %v", len(log), err)
	}
	r.says(200, fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action), "proceeding", "none", "")
	r.is(rollout.Installing) // the last range was the image's end
}

func TestTenThousandPostsASecondOfOneDeviceReachTheStoreFewTimes(t *testing.T) {
	r := newRig(t)
	action := r.roll()
	feedback := fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action)
	var wg sync.WaitGroup
	var taken, refused atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 250 {
				a := r.do("POST", feedback, `{"status":{"execution":"proceeding","result":{"finished":"none"}}}`)
				switch {
				case a.status == 200:
					taken.Add(1)
				case a.status == 429 && a.header.Get("Retry-After") == "1":
					refused.Add(1)
				default:
					t.Errorf("it is answered %d %s", a.status, a.body)
				}
			}
		})
	}
	wg.Wait()
	if taken.Load() != 100 || refused.Load() != 1900 { // the clock stands
		t.Errorf("%d posts were taken, %d refused", taken.Load(), refused.Load())
	}
	if d := r.device(); d.State != rollout.Downloading {
		t.Errorf("the device is %s", d.State)
	}
	if n := r.counter("muster_ddi_coalesced_total"); n < 91 { // each of the eight may have asked before the first was kept
		t.Errorf("%v of them were not kept, want 91 at least", n)
	}
	if a := r.do("GET", "/default/controller/v1/"+string(other), "", "Authorization: TargetToken "+another); a.status != 200 {
		t.Errorf("another device is answered %d meanwhile", a.status)
	}
	r.add(time.Second)
	r.says(200, feedback, "closed", "failure", "")
}

func (r *rig) counter(name string) (n float64) {
	r.Helper()
	all, err := r.gather.Gather()
	r.must(err)
	for _, f := range all {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestPeopleAtTheDeviceAreAskedWhereTheServerWantsThat(t *testing.T) {
	r := newRig(t, func(c *ddi.Config) { c.AskPeople, c.Attempt = true, true })
	action := r.roll()
	l := r.links()
	ask := l["confirmationBase"]
	if ask == "" || l["deploymentBase"] != "" {
		t.Fatalf("the links are %v", l)
	}
	b := r.do("GET", ask, "").json(t)
	if c, ok := b["confirmation"].(map[string]any); !ok || c["download"] != "attempt" || b["id"] != fmt.Sprint(action) {
		t.Errorf("people are asked %v", b)
	}
	deployment := fmt.Sprintf("%s/deploymentBase/%d", home, action)
	if a := r.do("GET", deployment, ""); a.status != 404 {
		t.Errorf("the deployment is answered %d before they confirm", a.status)
	}
	r.says(404, deployment+"/feedback", "closed", "success", "")
	module := fmt.Sprintf("%s/softwaremodules/%d/artifacts", home, action)
	name := r.shelf.release.Files[0].Filename
	fetched := func(want int) {
		t.Helper()
		for _, path := range []string{"", "/" + name + ".MD5SUM", "/" + name} {
			if a := r.do("GET", module+path, ""); a.status != want {
				t.Errorf("artifacts%s is answered %d, want %d", path, a.status, want)
			}
		}
	}
	fetched(404)
	r.is(rollout.Offered)
	answer := fmt.Sprintf("%s/confirmationBase/%d/feedback", home, action)
	for body, want := range map[string]int{`{"confirmation":"maybe"}`: 400, `{}`: 400, `{"confirmation":"confirmed","code":1,"details":["yes"]}`: 200} {
		if a := r.do("POST", answer, body); a.status != want {
			t.Errorf("%s is answered %d", body, a.status)
		}
	}
	if a := r.do("GET", deployment, ""); a.status != 200 {
		t.Errorf("the deployment is answered %d after they confirmed", a.status)
	}
	if a := r.do("POST", answer, `{"confirmation":"denied"}`); a.status != 404 {
		t.Errorf("a second answer is answered %d", a.status)
	}
	fetched(200)
}

func TestWhatHasBegunGoesOnWhenPeopleWantNoMoreOfThem(t *testing.T) {
	r := newRig(t, func(c *ddi.Config) { c.AskPeople = true })
	if a := r.do("POST", home+"/confirmationBase/activateAutoConfirm", ""); a.status != 200 {
		t.Fatalf("always is answered %d", a.status)
	}
	action := r.roll()
	image := fmt.Sprintf("%s/softwaremodules/%d/artifacts/%s", home, action, r.shelf.release.Files[0].Filename)
	if a := r.do("GET", image, ""); a.status != 200 {
		t.Fatalf("the image is answered %d", a.status)
	}
	r.is(rollout.Downloading)
	if a := r.do("POST", home+"/confirmationBase/deactivateAutoConfirm", ""); a.status != 200 {
		t.Fatalf("no more is answered %d", a.status)
	}
	if l := r.links(); l["deploymentBase"] == "" || l["confirmationBase"] != "" {
		t.Errorf("the links are %v", l)
	}
	if a := r.do("GET", image, ""); a.status != 200 {
		t.Errorf("the image is answered %d", a.status)
	}
}

func TestADeviceGetsNoImageUnaskedWhateverItSaysThatItDoes(t *testing.T) {
	for state, event := range map[rollout.State]rollout.Event{
		rollout.Downloading: rollout.SaysDownloading, rollout.Downloaded: rollout.SaysDownloaded, rollout.Installing: rollout.SaysInstalling, rollout.Rebooting: rollout.SaysRebooting,
	} {
		t.Run(state.String(), func(t *testing.T) {
			r := newRig(t, func(c *ddi.Config) { c.AskPeople = true })
			action := r.roll()
			r.must(r.desk.Report(t.Context(), director.Report{Device: dev, Fact: rollout.Fact{Event: event, Action: action}})) // by another door
			r.is(state)
			image := fmt.Sprintf("%s/softwaremodules/%d/artifacts/%s", home, action, r.shelf.release.Files[0].Filename)
			if a := r.do("GET", image, ""); a.status != 404 {
				t.Errorf("the image is answered %d", a.status)
			}
			if a := r.do("POST", fmt.Sprintf("%s/confirmationBase/%d/feedback", home, action), `{"confirmation":"confirmed"}`); a.status != 200 {
				t.Errorf("they confirm, which is answered %d", a.status)
			}
			if a := r.do("GET", image, ""); a.status != 200 {
				t.Errorf("after they confirmed the image is answered %d", a.status)
			}
		})
	}
}

func TestWhatPeopleDenyIsSkippedAndWhatTheyWantAlwaysIsNotAsked(t *testing.T) {
	r := newRig(t, func(c *ddi.Config) { c.AskPeople = true })
	base := func() map[string]any { return r.do("GET", home+"/confirmationBase", "").json(t) }
	if a := r.do("POST", home+"/confirmationBase/activateAutoConfirm", `{"initiator":"jo","remark":"always"}`); a.status != 200 {
		t.Fatalf("always is answered %d", a.status)
	}
	want := map[string]any{"active": true, "initiator": "jo", "remark": "always", "activatedAt": float64(1_800_000_000_000)}
	if d := cmp.Diff(want, base()["autoConfirm"]); d != "" {
		t.Error(d)
	}
	action := r.roll()
	if l := r.links(); l["deploymentBase"] == "" {
		t.Errorf("who wants all has %v", l)
	}
	if a := r.do("POST", home+"/confirmationBase/deactivateAutoConfirm", ""); a.status != 200 {
		t.Fatalf("no more is answered %d", a.status)
	}
	b := base()
	if l := b["_links"].(map[string]any); l["activateAutoConfirm"] == nil || l["confirmationBase"] == nil {
		t.Errorf("the base is %v", b)
	}
	answer := fmt.Sprintf("%s/confirmationBase/%d/feedback", home, action)
	if a := r.do("POST", answer, `{"confirmation":"denied","details":["not now"]}`); a.status != 200 {
		t.Errorf("no is answered %d", a.status)
	}
	if d := r.device(); d.State != rollout.Skipped || d.Reason != rollout.Denied || d.Detail != "not now" {
		t.Errorf("the device is %s, %s: %q", d.State, d.Reason, d.Detail)
	}
	if a := r.do("POST", answer, `{"confirmation":"confirmed"}`); a.status != 410 {
		t.Errorf("yes after all is answered %d", a.status)
	}
}

func TestAttributesThatAreNotTakenAreAskedForAgain(t *testing.T) {
	r := newRig(t)
	r.attributes.err = muster.Errorf(muster.Invalid, "no")
	if a := r.do("PUT", home+"/configData", `{"data":{"a":"b"}}`); a.status != 400 {
		t.Errorf("it is answered %d", a.status)
	}
	r.attributes.err = errors.New("disk")
	if a := r.do("PUT", home+"/configData", `{"data":{"a":"b"}}`); a.status != 500 || strings.Contains(string(a.body), "disk") {
		t.Errorf("it is answered %d %s", a.status, a.body)
	}
	if l := r.links(); l["configData"] == "" {
		t.Errorf("the links are %v", l)
	}
}

// straight is a connection's writer that takes files by itself.
type straight struct {
	http.ResponseWriter
	files int
	until time.Time
}

func (s *straight) SetWriteDeadline(t time.Time) error {
	s.until = t
	return nil
}

func (s *straight) ReadFrom(src io.Reader) (int64, error) {
	if l, ok := src.(*io.LimitedReader); ok {
		src = l.R
	}
	if _, ok := src.(*os.File); ok {
		s.files++
	}
	return io.Copy(struct{ io.Writer }{s.ResponseWriter}, src)
}

func TestAnImageGoesToTheConnectionAsAFile(t *testing.T) {
	var h http.Handler
	r := newRig(t, func(c *ddi.Config) {
		var err error
		if h, err = ddi.New(*c); err != nil {
			t.Fatal(err)
		}
		c.Metrics = nil
	})
	action := r.roll()
	req := httptest.NewRequest(http.MethodGet, fmt.Sprintf("%s/softwaremodules/%d/artifacts/%s", home, action, r.shelf.release.Files[0].Filename), nil)
	req.Header.Set("Authorization", "TargetToken "+token)
	w := &straight{ResponseWriter: httptest.NewRecorder(), until: time.Unix(1, 0)} // of the answer before
	h.ServeHTTP(w, req)
	if w.files != 1 {
		t.Errorf("the connection got %d files: sendfile is lost", w.files)
	}
	if !w.until.IsZero() {
		t.Error("the image is cut when the time of the answer before is over")
	}
}
