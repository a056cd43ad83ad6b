package live_test

import (
	"testing"

	"github.com/gorilla/websocket"

	"muster/dashboard/live"
)

// notifyx D11: the password was in the URL of the socket, which proxies log.
func TestATokenInTheURLLetsNobodyIn(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	d := websocket.Dialer{Subprotocols: []string{live.Subprotocol}, HandshakeTimeout: waitLong}
	conn, res, err := d.Dial(s.url()+"?token=mst_good&access_token=mst_good&key=mst_good", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	p := &peer{t: t, s: s, conn: conn}
	p.send(`{"t":"hello","id":1}`)
	if bye, code := p.closed(); bye["t"] != "bye" || code != 4501 {
		t.Errorf("got %v and close %d", bye, code)
	}
	p = s.script("mst_good") // in the first frame it does
	_ = p.conn.Close()
}
