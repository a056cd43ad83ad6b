package ui

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
)

// uploadServer takes one upload in pieces, and cuts connections in the middle of some.
type uploadServer struct {
	mu     sync.Mutex
	begun  []object
	got    []byte
	size   int
	pieces int
	cuts   []int // pieces, from 1, of which only the half is taken before the connection is cut
	gone   bool  // the answer to the last piece is cut too
	asked  int   // how often it was asked how far it is
}

func (u *uploadServer) answer(w http.ResponseWriter, status int) {
	out := object{"id": "up_1", "sha256": "", "size": u.size, "offset": len(u.got), "filename": "pump-1.swu", "created_at": nil}
	if u.size > 0 && len(u.got) == u.size {
		sum := sha256.Sum256(u.got)
		out["artifact"] = image("pump-1.swu")
		out["artifact"].(object)["sha256"], out["id"] = hex.EncodeToString(sum[:]), ""
	}
	writeJSON(w, status, out)
}

func (u *uploadServer) begin(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var in object
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		problem(w, 400, "invalid", err.Error())
		return
	}
	u.begun, u.size = append(u.begun, in), int(in["size"].(float64))
	u.answer(w, 201)
}

func (u *uploadServer) far(w http.ResponseWriter, _ *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked++
	if len(u.got) == u.size {
		problem(w, 404, "not_found", "there is no such upload")
		return
	}
	u.answer(w, 200)
}

func (u *uploadServer) piece(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pieces++
	if at, bad := strconv.Atoi(r.Header.Get("Upload-Offset")); err != nil || bad != nil || at != len(u.got) {
		problem(w, 409, "conflict", fmt.Sprintf("it goes on at %d", len(u.got)))
		return
	}
	for _, n := range u.cuts {
		if n == u.pieces {
			u.got = append(u.got, body[:len(body)/2]...)
			panic(http.ErrAbortHandler)
		}
	}
	u.got = append(u.got, body...)
	if u.gone && len(u.got) == u.size {
		u.gone = false
		panic(http.ErrAbortHandler)
	}
	u.answer(w, 200)
}

// An upload whose connection is cut in the middle of pieces, and after the last one, arrives as a whole; nothing
// but what was lost is sent again, and who looks is told.
func TestAnUploadGoesOnAfterCutsAndArrivesToTheByte(t *testing.T) {
	f := shipFixture(t)
	u := &uploadServer{cuts: []int{3, 8}, gone: true}
	f.extra["POST /api/v1/firmware/uploads"] = u.begin
	f.extra["GET /api/v1/firmware/uploads/{id}"] = u.far
	f.extra["PATCH /api/v1/firmware/uploads/{id}"] = u.piece
	b := open(t, f.fakeServer)
	b.expect("net::ERR_EMPTY_RESPONSE")
	b.expect("404")
	b.expect("409") // the browser sends a piece again by itself when its connection ends without an answer
	b.visit("/firmware")
	b.waitText(".drop", "Drop images here")
	const size = 3_000_017
	evaluate[bool](b, fmt.Sprintf(`(() => {
		const bytes = new Uint8Array(%d);
		for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 2654435761) >>> 24;
		const dt = new DataTransfer();
		dt.items.add(new File([bytes], "pump 1.swu"));
		document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {dataTransfer: dt, bubbles: true, cancelable: true}));
		return true;
	})()`, size))
	b.waitText(".sendings", "pump-1.swu")
	b.wait("the end of it", `document.querySelector(".sendings li[data-phase=done]")`)
	b.waitText(".sendings", "It is here: 2.9 MiB")
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(uint32(i*2654435761) >> 24)
	}
	sum := sha256.Sum256(want)
	u.mu.Lock()
	defer u.mu.Unlock()
	if !bytes.Equal(u.got, want) {
		t.Errorf("%d bytes arrived, not the %d that were sent", len(u.got), size)
	}
	if first := u.begun[0]; first["sha256"] != hex.EncodeToString(sum[:]) || first["filename"] != "pump-1.swu" || first["size"] != float64(size) {
		t.Errorf("it began with %v, want the digest %x", first, sum)
	}
	if u.asked < 3 || len(u.begun) != 2 { // after each cut, and once more after the last piece, whose answer was lost
		t.Errorf("it asked %d times how far it is, and began %d times", u.asked, len(u.begun))
	}
}

func TestAnUploadThatIsRefusedSaysWhyAndMayBeTriedAgain(t *testing.T) {
	f := shipFixture(t)
	u := &uploadServer{}
	full := true
	f.extra["POST /api/v1/firmware/uploads"] = func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		refuse := full
		full = false
		u.mu.Unlock()
		if refuse {
			problem(w, 507, "insufficient_storage", "the disk is full")
			return
		}
		u.begin(w, r)
	}
	f.extra["PATCH /api/v1/firmware/uploads/{id}"] = u.piece
	b := open(t, f.fakeServer)
	b.expect("507")
	b.visit("/firmware")
	b.waitText(".drop", "Drop images here")
	evaluate[bool](b, `(() => { const dt = new DataTransfer(); dt.items.add(new File(["abc"], "a.bin")); const i = document.querySelector(".drop input"); i.files = dt.files; i.dispatchEvent(new Event("change", {bubbles: true})); return true })()`)
	b.waitText(".sendings [role=alert]", "the disk is full")
	b.inspect("upload-failed")
	b.click(`.sendings [aria-label="Try again: a.bin"]`)
	b.wait("the end of it", `document.querySelector(".sendings li[data-phase=done]")`)
	b.click(`.sendings [aria-label="Take off the list: a.bin"]`)
	b.wait("an empty list", `!document.querySelector(".sendings")`)
}
