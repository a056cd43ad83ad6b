package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster"
)

// readBodies serves a body's reading; what it ended with is sent on.
func readBodies(t *testing.T, limit time.Duration) (url string, ended <-chan error) {
	t.Helper()
	all, errs := &bodies{}, make(chan error, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		st, err := all.take(w, r, "key", 1<<10, limit)
		if err != nil {
			t.Error(err)
			return
		}
		defer st.close()
		_, err = io.Copy(io.Discard, st)
		w.WriteHeader(http.StatusNoContent)
		errs <- err
	}))
	t.Cleanup(func() {
		s.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if all.taken != 0 || len(all.open)+len(all.of) != 0 {
			t.Errorf("room is left behind: %+v", all)
		}
	})
	return s.URL, errs
}

func TestABodyThatTricklesIsBrokenOff(t *testing.T) {
	url, ended := readBodies(t, 50*time.Millisecond)
	in, out := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, in)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
			_ = res.Body.Close()
		}
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if muster.KindOf(err) != muster.Timeout {
				t.Errorf("it ends with %v", err)
			}
			_ = out.Close()
			<-done
			return
		case <-tick.C:
			_, _ = io.WriteString(out, "x") // until the server has gone
		}
	}
}

func TestABodyThatComesIsReadToItsEnd(t *testing.T) {
	url, ended := readBodies(t, time.Minute)
	res, err := http.Post(url, "text/plain", strings.NewReader(strings.Repeat("x", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheRoomOfBodiesIsBounded(t *testing.T) {
	s := &bodies{}
	open := func(who string, size int64) (*openBody, error) {
		r := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
		return s.take(httptest.NewRecorder(), r, who, size, time.Minute)
	}
	a, err := open("a", maxBodiesOf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open("a", 1); muster.KindOf(err) != muster.Busy {
		t.Errorf("more of the same key: %v", err)
	}
	b, err := open("b", maxBodies-maxBodiesOf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open("c", 1); muster.KindOf(err) != muster.Busy {
		t.Errorf("more of another: %v", err)
	}
	a.close()
	if c, err := open("c", 1); err != nil {
		t.Error(err)
	} else {
		c.close()
	}
	b.close()
	if s.taken != 0 || len(s.open) != 0 || len(s.of) != 0 {
		t.Errorf("room is left behind: %+v", s)
	}
}

func TestWhatDoesNotBecomeDurableIsNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &taking{ctx: t.Context()}
		w.acks.less = make(chan struct{}, 1)
		w.acks.add(3)
		w.out.Accepted = 3
		w.acks.Acked(1, nil)
		began := time.Now()
		err := w.finish(nil)
		if muster.KindOf(err) != muster.Unavailable || time.Since(began) != confirmTime || w.out.Accepted != 1 {
			t.Errorf("after %s: %v, %d accepted", time.Since(began), err, w.out.Accepted)
		}
		go func() {
			<-time.After(time.Second) // of the bubble's clock
			w.acks.Acked(2, nil)
			w.acks.Acked(3, nil)
		}()
		if err := w.finish(nil); err != nil {
			t.Error(err)
		}
	})
}
