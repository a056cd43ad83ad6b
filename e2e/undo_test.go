package e2e

import (
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestACommandIsTakenBackBeforeItsDeviceComes sends a command to a device that is away, and takes it back.
func TestACommandIsTakenBackBeforeItsDeviceComes(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.device("gate", "token")
	b := openTab(t, m)
	b.comesIn(m)
	b.do(chromedp.Navigate(b.base + "/devices/gate/commands"))
	b.wait("the form", `document.querySelector(".sendform [name=method]:not(:disabled)")`)
	evaluate[bool](b, `(document.querySelector(".sendform [name=method]").focus(), true)`)
	b.do(chromedp.KeyEvent("open\r"))
	b.wait("the offer, which a pointer on it keeps", `(e => e?.textContent.includes("open is queued for gate.") && (e.dispatchEvent(new PointerEvent("pointerenter")), true))(document.querySelector(".undoing"))`)
	b.inspected("undo")
	b.press(".undoing .btn:not(.txt)")
	b.says(".undoing", "open was called off before it was sent to gate.")
	var page struct {
		Items []struct{ Method, State string }
	}
	m.ask(http.MethodGet, "/api/v1/devices/gate/commands", nil, http.StatusOK, &page)
	if len(page.Items) != 1 || page.Items[0].Method != "open" || page.Items[0].State != "cancelled" {
		t.Errorf("the commands are %+v", page.Items)
	}
	b.says(".commands", "cancelled")
}
