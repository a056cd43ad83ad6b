package e2e

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"
)

const (
	budgetImage = 300_000         // bytes, as story.release makes it
	budgetBlock = budgetImage / 8 // that a kill may cost
)

// fetching is a device that fetches its image by two doors.
type fetching struct {
	*story
	token, id string
	action    int
	sum       int // bytes that it got
}

// begun has a rollout of a release to one device, which has its offer.
func begun(t *testing.T, e engine) *fetching {
	t.Helper()
	f := &fetching{story: trusting(t, e), id: "pump-1"}
	f.token = f.device(f.id, "token").Token
	f.begins("Pumps", f.release("2.0.0"), "id:"+f.id, []any{map[string]any{"name": "all", "percent": 100}})
	f.await("the offer", storyLimit, func() bool { return f.offered() })
	return f
}

// fetches fetches by hawkBit's door and over MQTT in turn until nothing is left, with the end of a server and the start of another
// after each.
func (f *fetching) fetches(end func()) (ends int) {
	f.t.Helper()
	for again := true; again && ends < 20; ends++ {
		byMQTT := f.byMQTT(40_000)
		end()
		f.start()
		f.ready()
		again = f.byDDI(budgetImage/3) || byMQTT
	}
	return ends
}

// TestNoDeviceGetsMoreThanThreeTimesItsImageByAllDoorsAndOverKills kills the server again and again, and counts.
func TestNoDeviceGetsMoreThanThreeTimesItsImageByAllDoorsAndOverKills(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			f := begun(t, e)
			kills := f.fetches(f.kill)
			if most := 3 * budgetImage; f.sum > most || f.sum < most-(kills+1)*budgetBlock || f.sum < budgetImage {
				t.Errorf("it got %d bytes of %d over %d kills", f.sum, most, kills)
			}
			f.stop()
		})
	}
}

// TestADeviceLosesNothingOfItsBudgetByStops stops the server as a person does.
func TestADeviceLosesNothingOfItsBudgetByStops(t *testing.T) {
	t.Parallel()
	e := engines()[0]
	f := begun(t, e)
	stops := f.fetches(f.stop)
	for n := 10_000; n >= 256; n /= 2 { // what is left is less than was asked for
		for f.byMQTT(n) {
		}
	}
	if most := 3 * budgetImage; f.sum > most || f.sum < most-256 {
		t.Errorf("it got %d bytes of %d over %d stops", f.sum, most, stops)
	}
}

// ddi asks hawkBit's door for something of the device; the body is as much as came.
func (f *fetching) ddi(path, bytes string) (int, []byte) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, "http://"+f.http+"/default/controller/v1/"+f.id+path, http.NoBody)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "TargetToken "+f.token)
	if bytes != "" {
		req.Header.Set("Range", bytes)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil && resp.StatusCode >= http.StatusBadRequest {
		f.t.Fatal(err)
	}
	return resp.StatusCode, body // an image that is cut is counted as far as it came
}

// offered says whether the device was, and notes the action's number.
func (f *fetching) offered() bool {
	f.t.Helper()
	_, body := f.ddi("", "")
	m := regexp.MustCompile(`/deploymentBase/([0-9]+)`).FindSubmatch(body)
	if m == nil {
		return false
	}
	f.action, _ = strconv.Atoi(string(m[1])) // digits
	return true
}

// byDDI fetches a part of the image; false when nothing is left.
func (f *fetching) byDDI(n int) bool {
	f.t.Helper()
	status, body := f.ddi(fmt.Sprintf("/softwaremodules/%d/artifacts/fw-2.0.0.bin", f.action), fmt.Sprintf("bytes=0-%d", n-1))
	switch {
	case status == http.StatusPartialContent:
		f.sum += len(body)
		return true
	case status != http.StatusForbidden || !strings.Contains(string(body), "budget_spent"):
		f.t.Fatalf("by DDI: %d %s", status, body)
	}
	return false
}

// byMQTT fetches a part of the image in one piece; false when nothing is left.
func (f *fetching) byMQTT(n int) bool {
	f.t.Helper()
	c := paho3Client(f.t, f.muster, "tcp://"+f.mqtt, f.id, f.token, "")
	defer c.Disconnect(50)
	data, failed := make(chan int, 10), make(chan string, 10)
	must(f.t, c.Subscribe("devices/me/firmware/data/+", 0, func(_ paho3.Client, p paho3.Message) { data <- len(p.Payload()) }))
	must(f.t, c.Subscribe("devices/me/firmware/error", 0, func(_ paho3.Client, p paho3.Message) { failed <- string(p.Payload()) }))
	must(f.t, c.Publish("devices/me/firmware/get", 1, false, fmt.Sprintf(`{"action":%d,"off":0,"len":%d}`, f.action, n)))
	select {
	case got := <-data:
		f.sum += got
		return true
	case why := <-failed:
		if !strings.Contains(why, `"code":"budget"`) {
			f.t.Fatalf("over MQTT: %s", why)
		}
		return false
	case <-time.After(storyLimit):
		f.t.Fatal("no piece comes, and no answer")
	}
	return false
}
