package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/feed"
	"muster/store/control"
)

func (r *rig) newFeed(c *control.Control, log *slog.Logger) *feed.Feed {
	f := feed.New(c, log)
	r.must(f.Load(r.Context()))
	c.OnEvents(f.Publish)
	return f
}

// event is one block of a stream.
type event struct{ ID, Name, Data, Retry, Comment string }

// sse is an open stream.
type sse struct {
	*rig
	answer *http.Response
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

func (r *rig) stream(query string, options ...option) *sse {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/api/v1/stream"+query, nil)
	r.must(err)
	for _, o := range append([]option{bearer(r.admin)}, options...) {
		o(req)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	r.must(err)
	r.Cleanup(func() { cancel(); _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		r.Fatalf("a stream gives %d", res.StatusCode)
	}
	return &sse{r, res, bufio.NewScanner(res.Body), cancel}
}

// next reads a block; false when the stream has ended.
func (s *sse) next() (event, bool) {
	s.Helper()
	var e event
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case s.lines.Text() == "":
			return e, true
		case name == "id":
			e.ID = value
		case name == "event":
			e.Name = value
		case name == "data":
			e.Data = value
		case name == "retry":
			e.Retry = value
		case name == "":
			e.Comment = "yes"
		default:
			s.Fatalf("the stream has the line %q", s.lines.Text())
		}
	}
	return e, false
}

// begin reads what a stream begins with and returns its place.
func (s *sse) begin() string {
	s.Helper()
	retry, _ := s.next()
	place, ok := s.next()
	if retry.Retry != "2000" || !ok || place.ID == "" || place.Data != "" {
		s.Fatalf("the stream begins with %+v, %+v", retry, place)
	}
	return place.ID
}

// told reads n events and returns them as "number type device".
func (s *sse) told(n int) (out []string, last string) {
	s.Helper()
	for len(out) < n {
		e, ok := s.next()
		if !ok {
			s.Fatalf("the stream ended after %v", out)
		}
		if e.Data == "" {
			continue
		}
		var v struct {
			Type, Timestamp string
			Data            struct{ Device string }
		}
		s.must(json.Unmarshal([]byte(e.Data), &v))
		if _, err := time.Parse(time.RFC3339, v.Timestamp); err != nil {
			s.Error(err)
		}
		_, seq, _ := strings.Cut(e.ID, "-")
		out, last = append(out, strings.Join([]string{seq, v.Type, v.Data.Device}, " ")), e.ID
	}
	return out, last
}

func (s *sse) want(want ...string) (last string) {
	s.Helper()
	got, last := s.told(len(want))
	if d := cmp.Diff(want, got); d != "" {
		s.Error(d)
	}
	return last
}

func TestAStreamTellsEventsAsTheyHappenAndGoesOnWhereItsReaderWas(t *testing.T) {
	r := newRig(t)
	s := r.stream("")
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"} {
		if got := s.answer.Header.Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	begun := s.begin()
	r.device("a")
	last := s.want("1 device.created a")
	if last != s.place(begun, 1) {
		t.Errorf("after %s comes %s", begun, last)
	}
	s.cancel()
	r.device("b")
	r.device("c")
	for _, again := range []*sse{r.stream("", header("Last-Event-ID", last)), r.stream("?after=" + url.QueryEscape(last))} {
		if at := again.begin(); at != last {
			t.Errorf("the place is %s", at)
		}
		again.want("2 device.created b", "3 device.created c")
	}
}

// place is the id of event n in the feed of another id.
func (s *sse) place(id string, n int) string {
	epoch, _, _ := strings.Cut(id, "-")
	return epoch + "-" + strconv.Itoa(n)
}

func TestAStreamIsFilteredByTypeByQueryAndByTheKeysSelector(t *testing.T) {
	r := newRig(t)
	tags, err := devices.TagsOf(map[string]string{"hall": "3"})
	r.must(err)
	start := r.stream("").begin()
	for _, s := range []devices.Spec{{ID: "a", Tags: tags}, {ID: "b"}} {
		_, _, err := r.registry.Create(r.Context(), s)
		r.must(err)
	}
	name := "new"
	for _, id := range []muster.DeviceID{"a", "b"} {
		_, err := r.registry.Update(r.Context(), id, devices.Change{Name: &name})
		r.must(err)
	}
	all, _ := r.stream("?after=" + start).told(4)
	_, mine, err := r.accounts.CreateKey(r.Context(), accounts.KeySpec{Name: "mine", Scopes: []string{accounts.DevicesRead, accounts.TelemetryRead}, Selector: "tag:hall=3"})
	r.must(err)
	for query, want := range map[string][]string{
		"&types=device.updated":           {all[2], all[3]},
		"&types=presence.*,device.*":      all,
		"&q=tag:hall%3D3":                 {all[0], all[2]},
		"&q=id:b&types=device.created":    {all[1]},
		"&types=rollout.*,device.updated": {all[2], all[3]},
	} {
		r.stream("?after=" + start + query).want(want...)
	}
	r.stream("?after="+start, bearer(mine)).want(all[0], all[2])
	for query, want := range map[string]int{
		"?types=nothing": 422, "?q=((": 422, "?after=x": 422, "?after=x-y": 422, "?after=-1": 422, "?channel=nothing": 404, "?limit=3": 422, "?sort=id": 422, "?cols=a": 422, "?channel=fleet&q=id:a": 422, "?channel=devices&types=device.*": 422, "?colour=red": 422,
		"?types=" + strings.Repeat("device.*,", 33) + "device.*": 422,
	} {
		r.do("GET", "/api/v1/stream"+query, nil, bearer(r.admin)).wantStatus(t, want)
	}
}

func TestAReaderWhosePlaceIsForgottenIsTold(t *testing.T) {
	r := newRig(t)
	begun := r.stream("").begin()
	for _, place := range []string{"ANOTHER-0", (&sse{}).place(begun, 999)} {
		s := r.stream("", header("Last-Event-ID", place))
		_, _ = s.next()
		e, _ := s.next()
		if e.Name != "reset" || !strings.HasPrefix(e.Data, `{"reason":"`) || e.ID != begun {
			t.Errorf("after %s comes %+v", place, e)
		}
	}
}

func TestAStreamEndsWithItsKeyOrSessionWithinASecond(t *testing.T) {
	r := newRig(t)
	k, secret, err := r.accounts.CreateKey(r.Context(), accounts.KeySpec{Name: "k", Scopes: []string{accounts.DevicesRead, accounts.TelemetryRead}})
	r.must(err)
	s := r.stream("", bearer(secret))
	other := r.stream("")
	s.begin()
	other.begin()
	began := time.Now()
	r.must(r.accounts.DeleteKey(r.Context(), k.ID))
	if e, ok := s.next(); ok || time.Since(began) > time.Second {
		t.Errorf("it goes on with %+v, %v after", e, time.Since(began))
	}
	r.device("a")
	other.told(1)
}

func TestSoManyStreamsOfOneKeyAndNoMore(t *testing.T) {
	r := newRig(t)
	var open []*sse
	for range 20 {
		open = append(open, r.stream(""))
	}
	a := r.as("GET", "/api/v1/stream", nil)
	a.wantProblem(t, 429, "busy")
	if a.Header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	r.stream("", bearer(r.key(accounts.DevicesRead, accounts.TelemetryRead))).begin()
	open[0].cancel()
	for tries := 0; ; tries++ { // its place is given back when the server sees that it has gone
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.url+"/api/v1/stream", nil)
		r.must(err)
		req.Header.Set("Authorization", "Bearer "+r.admin)
		res, err := http.DefaultTransport.RoundTrip(req)
		r.must(err)
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return
		}
		if tries > 1000 {
			t.Fatal("the place is not given back")
		}
	}
}

func TestNoEventIsMissedOrDoubledByAReaderThatIsCutAgainAndAgain(t *testing.T) {
	r := newRig(t)
	place := r.stream("").begin()
	const n = 60
	made := make(chan error, 1)
	go func() {
		for i := range n {
			if _, _, err := r.registry.Create(context.Background(), devices.Spec{ID: muster.DeviceID(fmt.Sprint("d", i))}); err != nil {
				made <- err
				return
			}
		}
		made <- nil
	}()
	for want := 0; want < n; {
		s := r.stream("", header("Last-Event-ID", place))
		var got []string
		got, place = s.told(min(1+want%7, n-want))
		s.cancel()
		for _, g := range got {
			if !strings.HasSuffix(g, fmt.Sprintf(" device.created d%d", want)) {
				t.Fatalf("%s came where d%d was next", g, want)
			}
			want++
		}
	}
	r.must(<-made)
}

// Who does not see a private topic is not told that something was sent to it, and nobody but admins that a delivery died.
func TestAStreamTellsOfPrivateTopicsToWhoSeesThemAlone(t *testing.T) {
	r := newRig(t)
	ann, eve := r.enters("ann", accounts.Operator), r.enters("eve", accounts.Viewer)
	ann.topic(object{"name": "secret", "visibility": "private"})
	noKey := func(req *http.Request) { req.Header.Del("Authorization") }
	owner, stranger, admin := r.stream("", ann.as, noKey), r.stream("", eve.as, noKey), r.stream("")
	for _, s := range []*sse{owner, stranger, admin} {
		s.begin()
	}
	ann.sends(object{"topic": "secret", "title": "x", "severity": "info"})
	ctx := feed.With(t.Context())
	feed.Note(ctx, feed.NewEvent(feed.DeliveryDead, "", muster.MicrosOf(time.Now()), map[string]string{"delivery": "dlv_x", "target": ann.id}))
	r.must(r.control.WriteNotes(ctx))
	r.device("a")
	owner.want("1 notification.created ", "3 device.created a")
	stranger.want("3 device.created a")
	admin.want("1 notification.created ", "2 delivery.dead ", "3 device.created a")
}
