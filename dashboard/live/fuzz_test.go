package live_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/gorilla/websocket"

	"muster/dashboard/live"
)

// FuzzClientFrames: whatever a client that was let in sends in a text frame, the
// server answers in valid JSON, and goes on.
func FuzzClientFrames(f *testing.F) {
	for _, seed := range []string{
		`{"t":"sub","id":1,"ch":"fleet"}`, `{"t":"sub","id":2,"ch":"devices","q":"","sort":"-seen","limit":2,"cols":["a"]}`,
		`{"t":"sub","id":3,"ch":"device:dev-001"}`, `{"t":"unsub","id":4,"ch":"fleet"}`, `{"t":"vis","on":false}`,
		`{"t":"vis","id":5,"on":true}`, `[{"t":"ping","id":6,"ts":1},{"t":"sub"},3,null,[]]`, `{"t":"hello","token":"x"}`,
		`{"t":"sub","id":7,"ch":"inbox","limit":3}`, `{"t":"sub","ch":"inbox","after":"x-1"}`, `{"t":"ack","id":8,"n":["ntf_1"],"state":"acked","note":"n"}`,
		`{"t":"pub","id":9,"topic":"all","msg":{"Title":"t"},"key":"k"}`, `{"t":"pub","msg":[[],null]}`, `{"t":"ack","n":[null],"state":"read"}`,
		`{"t":"sub","id":10,"ch":"dots","by":"firmware"}`, `[{"t":"sub","ch":"dots"},{"t":"dots","version":1,"from":0,"to":2}]`, `{"t":"dots","version":-1,"from":9e9,"to":null}`,
		`{"t":17,"id":"x"}`, `{"t":"sub","ch":"device:\u0000\ud800"}`, `{"id":9223372036854775808}`, "\xff{", `[[[[`,
	} {
		f.Add([]byte(seed))
	}
	w := newWorld(3)
	w.post = newPost(f)
	f.Cleanup(w.post.close)
	w.post.subscribe("ann")
	s := newSite(f, w, live.Config{CommandBurst: 1 << 40, MaxPerUser: 1 << 20})
	f.Cleanup(func() { s.t = f; s.close() })
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > 64<<10 {
			return
		}
		s.t = t
		p := s.browser("ann")
		defer p.conn.Close()
		if err := p.conn.WriteMessage(websocket.TextMessage, frame); err != nil {
			t.Fatal(err)
		}
		p.send(`{"t":"ping","id":-77,"ts":-77}`)
		for {
			kind, data, err := p.conn.ReadMessage()
			if err != nil {
				t.Fatalf("%q ended the connection: %v", frame, err)
			}
			if kind == websocket.BinaryMessage { // of dots
				continue
			}
			if !json.Valid(data) {
				t.Fatalf("%q is answered with %q", frame, data)
			}
			var many []map[string]any
			if json.Unmarshal(data, &many) != nil {
				one := map[string]any{}
				if err := json.Unmarshal(data, &one); err != nil {
					t.Fatal(err)
				}
				many = append(many, one)
			}
			if slices.ContainsFunc(many, func(f map[string]any) bool { return f["re"] == -77.0 && f["ts"] == -77.0 }) {
				break
			}
		}
		if n := s.g.Stats().Panics; n != 0 {
			t.Fatalf("%q made a panic", frame)
		}
	})
}
