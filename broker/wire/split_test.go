package wire

import (
	"bytes"
	"testing"
)

func TestSplitFindsTheFirstPacket(t *testing.T) {
	big := append([]byte{0x30, 0x80, 0x01}, make([]byte, 128)...)
	tests := []struct {
		name    string
		in      []byte
		limit   int
		body    []byte
		n, need int
		code    byte
	}{
		{name: "nothing yet"},
		{name: "the type alone", in: []byte{0x30}},
		{name: "a length that goes on", in: []byte{0x30, 0x80}},
		{name: "a length that goes on for three bytes", in: []byte{0x30, 0xff, 0xff, 0xff}},
		{name: "a body that is missing", in: []byte{0x30, 5}, need: 7},
		{name: "a body in part", in: []byte{0x30, 5, 'a', 'b'}, need: 7},
		{name: "an empty body", in: []byte{0xc0, 0, 0xc0}, body: []byte{}, n: 2, need: 2},
		{name: "a body and the next packet", in: []byte{0x30, 2, 'a', 'b', 0xc0, 0}, body: []byte("ab"), n: 4, need: 4},
		{name: "a length of two bytes", in: big, body: make([]byte, 128), n: 131, need: 131},
		{name: "a packet as large as the limit", in: big, limit: 131, body: make([]byte, 128), n: 131, need: 131},
		{name: "the largest length there is", in: []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, need: 268435460},
		{name: "MQTT-3.1.2-24: a packet over the limit, by its header alone", in: big[:3], limit: 130, need: 131, code: CodeTooLarge},
		{name: "the largest packet against a limit", in: []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, limit: 1 << 18, need: 268435460, code: CodeTooLarge},
		{name: "MQTT-1.5.5-1: a length of five bytes", in: []byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}, code: CodeMalformed},
		{name: "a length whose fourth byte goes on", in: []byte{0x30, 0xff, 0xff, 0xff, 0xff}, code: CodeMalformed},
		{name: "MQTT-1.5.5-1: a length that is overlong", in: []byte{0x30, 0x85, 0x00}, code: CodeMalformed},
		{name: "MQTT-1.5.5-1: a zero that is overlong", in: []byte{0xc0, 0x80, 0x00}, code: CodeMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			head, body, n, need, err := Split(tt.in, tt.limit)
			wantCode(t, err, tt.code)
			if len(tt.in) > 0 && head != tt.in[0] {
				t.Errorf("head 0x%02x", head)
			}
			if !bytes.Equal(body, tt.body) || n != tt.n || need != tt.need {
				t.Errorf("body % x, n %d, need %d; want % x, %d, %d", body, n, need, tt.body, tt.n, tt.need)
			}
			if n > 0 && n > len(body) && len(body) > 0 && &body[0] != &tt.in[n-len(body)] {
				t.Error("the body is a copy")
			}
			if cap(body) != len(body) {
				t.Error("appending to the body would overwrite the next packet")
			}
		})
	}
}

func TestSplitTakesOnlyWhatAClientMaySend(t *testing.T) {
	good := map[byte]string{
		0x10: "CONNECT", 0x40: "PUBACK", 0x50: "PUBREC", 0x62: "PUBREL", 0x70: "PUBCOMP",
		0x82: "SUBSCRIBE", 0xa2: "UNSUBSCRIBE", 0xc0: "PINGREQ", 0xe0: "DISCONNECT", 0xf0: "AUTH",
		0x30: "PUBLISH", 0x31: "retained", 0x32: "QoS 1", 0x33: "QoS 1 retained", 0x34: "QoS 2", 0x35: "QoS 2 retained",
		0x3a: "QoS 1 again", 0x3b: "QoS 1 again, retained", 0x3c: "QoS 2 again", 0x3d: "QoS 2 again, retained",
	}
	for head := range 256 {
		_, _, _, _, err := Split([]byte{byte(head)}, 0)
		if name := good[byte(head)]; name != "" {
			if err != nil {
				t.Errorf("0x%02x (%s) is refused: %v", head, name, err)
			}
			continue
		}
		wantCode(t, err, CodeMalformed) // MQTT-2.1.3-1, 3.3.1-2, 3.3.1-4, 3.6.1-1, 3.8.1-1, 3.10.1-1, 3.14.1-1
	}
}
