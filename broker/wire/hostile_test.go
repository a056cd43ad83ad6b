package wire

import (
	"bytes"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// TestNoDamagedPacketPanics takes one full packet of each type, replaces each byte
// by each other, cuts it at each length, and decodes it in each version. A panic
// outside the codec ends the test.
func TestNoDamagedPacketPanics(t *testing.T) {
	user := join(packets.PropUser, "k", "v")
	tests := map[string]struct {
		body   []byte
		decode func(*Decoder, []byte, byte) error
	}{
		"CONNECT": {connectBody(5, 0xee, block(packets.PropSessionExpiryInterval, uint32(60), user), "c",
			block(packets.PropWillDelayInterval, uint32(5), packets.PropContentType, "t", user), "t", "m", "u", "p"), decodeConnect},
		"PUBLISH": {
			join("t", uint16(1), block(user, packets.PropTopicAlias, uint16(1), packets.PropContentType, "t",
				packets.PropMessageExpiryInterval, uint32(7), packets.PropResponseTopic, "r"), raw("p")),
			func(d *Decoder, b []byte, v byte) error { _, err := d.Publish(0x32, b, v); return err },
		},
		"PUBACK": {
			join(uint16(1), 0x97, block(packets.PropReasonString, "r", user)),
			func(d *Decoder, b []byte, v byte) error { _, _, err := d.Ack(0x40, b, v); return err },
		},
		"SUBSCRIBE":   {join(uint16(1), block(packets.PropSubscriptionIdentifier, 5, user), "a/+", 0x2e, "b", 1), decodeSubscribe},
		"UNSUBSCRIBE": {join(uint16(1), block(user), "a/+", "b"), decodeUnsubscribe},
		"DISCONNECT":  {join(4, block(packets.PropSessionExpiryInterval, uint32(9), packets.PropReasonString, "r", user)), decodeDisconnect},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var d Decoder
			if err := tt.decode(&d, tt.body, 5); err != nil {
				t.Fatalf("the undamaged packet is refused: %v", err)
			}
			for _, version := range []byte{3, 4, 5} {
				for cut := range tt.body {
					_ = refused(t, tt.decode(&d, tt.body[:cut:cut], version))
				}
				for at := range tt.body {
					damaged := bytes.Clone(tt.body)
					for value := range 256 {
						damaged[at] = byte(value)
						_ = refused(t, tt.decode(&d, damaged, version))
					}
				}
			}
		})
	}
}

func TestAConnectThatIsCutShortIsRefused(t *testing.T) {
	for _, whole := range [][]byte{
		connectBody(3, 0xee, "c", "t", "m", "u", "p"),
		connectBody(4, 0xee, "c", "t", "m", "u", "p"),
		connectBody(5, 0xee, block(packets.PropUser, "k", "v"), "c", block(packets.PropUser, "k", "v"), "t", "m", "u", "p"),
	} {
		var d Decoder
		if _, err := d.Connect(whole); err != nil {
			t.Fatal(err)
		}
		for cut := range whole {
			_, err := d.Connect(whole[:cut:cut])
			wantCode(t, err, CodeMalformed)
		}
	}
}
