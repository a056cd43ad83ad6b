package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// shownRollout is what the API says of a rollout, as far as its page shows it.
type shownRollout struct {
	Name     string
	Progress struct {
		Status   string
		Devices  int
		Ended    int
		InFlight int `json:"in_flight"`
		Phases   []struct {
			Devices int
			States  map[string]int
		}
	}
}

// words is how the page says it: status, devices, those that it is through with, and each state's count.
func (r *shownRollout) words() string {
	states := map[string]int{}
	for _, p := range r.Progress.Phases {
		for s, n := range p.States {
			states[s] += n
		}
	}
	out := fmt.Sprintf("%s %d %d", r.Progress.Status, r.Progress.Devices, r.Progress.Ended)
	for s := range strings.FieldsSeq("confirmed offered downloading downloaded installing rebooting failed rolled_back timed_out queued skipped canceled") {
		if states[s] > 0 {
			out += fmt.Sprintf(" %s=%d", s, states[s])
		}
	}
	return out
}

// rolloutPage reads the same off the page.
const rolloutPage = `(() => {
	const number = e => e?.textContent.match(/[\d,]+/)?.[0].replaceAll(",", "");
	const fact = word => number([...document.querySelectorAll(".rollout .facts > div")].find(d => d.querySelector("dt").textContent === word)?.querySelector("dd"));
	return [document.querySelector(".rollout .status")?.textContent.trim(), fact("Devices"), fact("Through"),
		...[...document.querySelectorAll(".rollout .legend [data-state]")].map(l => l.dataset.state + "=" + number(l.querySelector("b")))].join(" ");
})()`

// TestARolloutIsStartedWatchedAndAbortedOnItsPage makes a rollout of a release to virtual devices by its form,
// compares what the page shows with what the API says while devices update, and aborts it.
func TestARolloutIsStartedWatchedAndAbortedOnItsPage(t *testing.T) {
	t.Parallel()
	s := &story{muster: serve(t), dir: t.TempDir()}
	t.Cleanup(s.endFleet)
	s.run("firmware", "keygen", s.path("release.key"))
	s.run("firmware", "trust", s.path("release.key.pub"), "--name", "build server")
	s.release("2.0.0")
	s.fleet(0)
	b := openTab(t, s.muster)
	b.comesIn(s.muster)
	b.do(chromedp.Navigate(b.base + "/firmware"))
	b.says(".releases tbody", "pump 2.0.0")
	b.says(".releases tbody", "build server")
	b.press(".releases .to")
	b.says(".release .status", "published")
	b.press(".release a.btn.pri")
	b.says(".newrollout .matching", fmt.Sprintf("%d devices match now.", storyDevices))
	b.choose(".newrollout", "start", "now")
	b.press(".moreof summary")
	for i, share := range []string{"3", "100%"} { // the second phase waits for a person, so that the rollout stays
		b.press(`fieldset[class*="phases"] > .btn`)
		b.do(chromedp.SendKeys(chromedp.CSS(fmt.Sprintf(`[name="plan/phases/%d/devices"]`, i)), share))
	}
	b.choose(".newrollout", "plan/phases/0/gate", "manual")
	b.do(chromedp.SendKeys(chromedp.CSS(`[name="plan/soak_s"]`), "1"))
	b.press(".newrollout .btn.pri")
	b.wait("its page", `location.pathname.startsWith("/rollouts/rol_")`)
	id := strings.TrimPrefix(evaluate[string](b, "location.pathname"), "/rollouts/")
	b.says(".rollout .says", "a person must approve")
	b.agrees(s.muster, id, "waits for approval")
	b.press(".rollout .ways .btn.pri")
	b.wait("the second phase", `document.querySelector(".phases li.on")?.dataset.phase === "2"`)
	b.wait("updated devices of it", `document.querySelector("[data-phase='2'] .segbar .done")`)
	b.press(".rollout .ways .btn.pri")
	b.says(".rollout .status", "paused")
	b.press(`.rollout .ways [aria-label^="Abort "]`)
	b.press(`.rollout .ways [aria-label^="End it for "]`)
	b.says(".rollout .status", "aborted")
	b.agrees(s.muster, id, "aborted")
	b.says(".rolloutlog tbody", "pump-")
	b.press(`.rolloutdevices tbody .btn`)
	b.says(".answer", "It reports version")
	b.inspected("rollout")
	s.mayNotAsAViewer(t, id)
}

// agrees waits until the page shows what the API says, and status for how it stands.
func (b *tab) agrees(m *muster, id, status string) {
	b.t.Helper()
	var page, api string
	m.await("the page and the API to agree", pageLimit, func() bool {
		var r shownRollout
		m.ask(http.MethodGet, "/api/v1/rollouts/"+id, nil, http.StatusOK, &r)
		page = evaluate[string](b, rolloutPage)
		api = strings.Replace(r.words(), r.Progress.Status, status, 1)
		return page == api
	})
	b.t.Log(page)
}

// mayNotAsAViewer has a viewer look at a rollout: nothing that changes it can be pressed, and the server refuses it too.
func (s *story) mayNotAsAViewer(t *testing.T, id string) {
	t.Helper()
	var invited struct{ Invitation string }
	s.ask(http.MethodPost, "/api/v1/users", map[string]string{"email": "vic@example.com", "role": "viewer"}, http.StatusCreated, &invited)
	newVisitor(t, s.muster).ask(http.MethodPost, "/api/v1/invitations/accept", map[string]string{"token": linkTo(t, invited.Invitation, "/invite/"), "name": "Vic", "password": firstPassword}, http.StatusOK)
	b := openTab(t, s.muster)
	b.signsIn("vic@example.com", firstPassword)
	for _, path := range []string{"/rollouts/" + id, "/rollouts", "/firmware"} {
		b.do(chromedp.Navigate(b.base + path))
		b.says("main", "role operator")
		if enabled := evaluate[[]string](b, `[...document.querySelectorAll("main button:not([disabled])")].map(e => e.textContent).filter(t => !/^(Why\?|Ask|More)/.test(t))`); len(enabled) > 0 {
			t.Errorf("%s lets a viewer press %q", path, enabled)
		}
	}
	for call, want := range map[string]int{"POST /rollouts/" + id + "/rollback": 403, "POST /rollouts": 403, "POST /firmware/uploads": 403, "GET /system": 403, "GET /audit": 403, "GET /rollouts/" + id: 200} {
		method, path, _ := strings.Cut(call, " ")
		body := map[bool]string{true: `, headers: {"Content-Type": "application/json"}, body: "{}"`}[method == "POST"]
		got := asked[int](b, fmt.Sprintf(`fetch("/api/v1%s", {method: %q%s}).then(r => r.status)`, path, method, body))
		if got != want {
			t.Errorf("%s of a viewer is answered %d, want %d", call, got, want)
		}
	}
	b.known("-")
}

// asked evaluates what becomes of a promise.
func asked[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, pageLimit)
	defer cancel()
	n, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return n
}

// TestAnUploadFromThePageGoesOnOverAKill kills the server while a browser uploads an image, and starts it again: the
// upload goes on by itself, and the image is what was chosen, to the byte.
func TestAnUploadFromThePageGoesOnOverAKill(t *testing.T) {
	t.Parallel()
	m := serve(t)
	b := openTab(t, m)
	b.comesIn(m)
	b.do(chromedp.Navigate(b.base + "/firmware"))
	b.says(".drop", "Drop images here")
	const size = 6_000_011
	b.uploadsAt(1 << 20) // bytes a second: a kill comes in the middle
	evaluate[bool](b, fmt.Sprintf(`(() => {
		const bytes = new Uint8Array(%d);
		for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 2654435761) >>> 24;
		const dt = new DataTransfer();
		dt.items.add(new File([bytes], "pump-9.bin"));
		const input = document.querySelector(".drop input");
		input.files = dt.files;
		input.dispatchEvent(new Event("change", {bubbles: true}));
		return true;
	})()`, size))
	image := make([]byte, size)
	for i := range image {
		image[i] = byte(uint32(i*2654435761) >> 24)
	}
	sum := sha256.Sum256(image)
	digest := hex.EncodeToString(sum[:])
	b.wait("a part to be here", `+document.querySelector(".sendings li[data-phase=sending] [role=progressbar]")?.getAttribute("aria-valuenow") > 0`)
	m.kill()
	b.wait("the page to wait", `document.querySelector(".sendings li[data-phase=waiting]")`)
	m.start()
	m.ready()
	b.uploadsAt(-1)
	b.wait("the end of it", `document.querySelector(".sendings li[data-phase=done]")`)
	b.says(".images tbody", "pump-9.bin")
	var a struct {
		Size     int
		Filename string
	}
	m.ask(http.MethodGet, "/api/v1/firmware/artifacts/"+digest, nil, http.StatusOK, &a)
	if a.Size != size || a.Filename != "pump-9.bin" {
		t.Errorf("the image is %+v", a)
	}
	if got := evaluate[string](b, `document.querySelector(".images tbody tr").dataset.sha`); got != digest {
		t.Errorf("the page shows %s, want %s", got, digest)
	}
	status, got, err := get(t.Context(), "http://"+m.http+"/api/v1/firmware/artifacts/"+digest+"/content", m.key)
	if err != nil || status != http.StatusOK || !bytes.Equal(got, image) {
		t.Errorf("the image comes back as %d with %d bytes, %v", status, len(got), err)
	}
	b.mu.Lock()
	b.errors = nil // the browser writes of each connection that was lost
	b.mu.Unlock()
}

// uploadsAt has the browser upload so many bytes a second; -1 for as many as it can.
func (b *tab) uploadsAt(rate float64) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
			MatchedNetworkConditions: []*network.Conditions{{DownloadThroughput: -1, UploadThroughput: rate}},
		})
		return err
	}))
}

// TestTheNumbersOfTheServersPagesAreItsOwn compares what the pages Firmware, Tasks, Audit and System show with what the API
// says at that moment.
func TestTheNumbersOfTheServersPagesAreItsOwn(t *testing.T) {
	t.Parallel()
	s := &story{muster: serve(t), dir: t.TempDir()}
	t.Cleanup(s.endFleet)
	s.run("firmware", "keygen", s.path("release.key"))
	s.run("firmware", "trust", s.path("release.key.pub"), "--name", "build server")
	s.release("2.0.0")
	s.fleet(0)
	b := openTab(t, s.muster)
	b.comesIn(s.muster)

	b.do(chromedp.Navigate(b.base + "/firmware"))
	b.same(s.muster, "how many devices report which version", `[...document.querySelectorAll(".versions li")].map(l => l.dataset.version + "=" + l.querySelector("b").textContent).join(" ")`, func() (out string) {
		var f struct {
			Items []struct {
				Values []struct {
					Value   string
					Devices int
				}
			}
		}
		s.ask(http.MethodGet, "/api/v1/devices:facets?fields=firmware&limit=100", nil, http.StatusOK, &f)
		for _, v := range f.Items[0].Values {
			out += fmt.Sprintf(" %s=%d", v.Value, v.Devices)
		}
		return strings.TrimSpace(out)
	})

	b.do(chromedp.Navigate(b.base + "/tasks"))
	b.press(".kinds-of-tasks header .btn")
	b.same(s.muster, "the tasks", `[...document.querySelectorAll(".tasks tbody tr")].map(r => [r.dataset.id, r.children[1].textContent.trim(), r.querySelector(".val").textContent].join(" ")).join(", ")`, func() string {
		var l struct {
			Items []struct {
				ID, State   string
				Done, Total int
			}
		}
		s.ask(http.MethodGet, "/api/v1/tasks", nil, http.StatusOK, &l)
		if len(l.Items) != 1 || l.Items[0].State != "succeeded" {
			return "not yet"
		}
		return fmt.Sprintf("%s succeeded %d of %d", l.Items[0].ID, l.Items[0].Done, l.Items[0].Total)
	})

	b.do(chromedp.Navigate(b.base + "/audit?action=release.publish"))
	b.same(s.muster, "the records", `[...document.querySelectorAll(".audit tbody tr[data-seq]")].map(r => r.dataset.seq + " " + r.children[3].textContent + " " + r.children[4].textContent).join(", ")`, func() string {
		var l struct {
			Items []struct {
				Seq            int
				Action, Object string
			}
		}
		s.ask(http.MethodGet, "/api/v1/audit?action=release.publish", nil, http.StatusOK, &l)
		if len(l.Items) != 1 {
			t.Fatalf("there are %d records", len(l.Items))
		}
		return fmt.Sprintf("%d %s %s", l.Items[0].Seq, l.Items[0].Action, l.Items[0].Object)
	})

	s.endFleet() // so that figures stand still
	b.do(chromedp.Navigate(b.base + "/dashboard"))
	b.same(s.muster, "the figures", `["received", "stored", "rejected"].map(k => document.querySelector("[data-section=ingest] [data-figure=" + k + "] td")?.textContent.replaceAll(",", "")).join(" ") + " " +
		document.querySelectorAll("[data-section=services] .loops li").length + " " + document.querySelector("[data-section=nodes] tbody th")?.textContent`, func() string {
		var sys struct {
			Sections struct {
				Nodes    []struct{ ID string }
				Services []struct{ Name string }
				Ingest   struct {
					Ledger struct{ Received, Stored, Rejected int }
				}
			}
		}
		s.ask(http.MethodGet, "/api/v1/system", nil, http.StatusOK, &sys)
		l := sys.Sections.Ingest.Ledger
		return fmt.Sprintf("%d %d %d %d %s", l.Received, l.Stored, l.Rejected, len(sys.Sections.Services), sys.Sections.Nodes[0].ID)
	})
}

// same waits until the page says what the API does.
func (b *tab) same(m *muster, what, expression string, api func() string) {
	b.t.Helper()
	var page, want string
	defer func() {
		if b.t.Failed() {
			b.t.Logf("%s: the page says %q, the API %q", what, page, want)
		}
	}()
	m.await(what+" to be the server's", pageLimit, func() bool {
		page, want = evaluate[string](b, expression), api()
		return page == want
	})
	b.t.Logf("%s: %s", what, page)
}
