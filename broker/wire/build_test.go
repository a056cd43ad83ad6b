package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// What the tests build bodies from.

func join(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			b = append(b, p...)
		case string: // a UTF-8 string or binary data with its length
			b = appendText(b, p)
		case byte:
			b = append(b, p)
		case int:
			b = append(b, byte(p))
		case uint16:
			b = binary.BigEndian.AppendUint16(b, p)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, p)
		}
	}
	return b
}

// block is a property block with its length.
func block(parts ...any) []byte {
	b := join(parts...)
	return append(appendVarint(nil, len(b)), b...)
}

// raw stands for bytes without a length.
func raw(s string) []byte { return []byte(s) }

// connectBody is a CONNECT's body; what follows the keep alive is rest.
func connectBody(version byte, flags int, rest ...any) []byte {
	name := "MQTT"
	if version == 3 {
		name = "MQIsdp"
	}
	return append(join(name, version, flags, uint16(60)), join(rest...)...)
}

// wantCode checks that err is an *Error with a code, or nil when code is 0.
func wantCode(t *testing.T, err error, code byte) {
	t.Helper()
	if code == CodeSuccess {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v, want an *Error with code 0x%02x", err, code)
	}
	if e.Code != code {
		t.Fatalf("got %v, want code 0x%02x", e, code)
	}
	if e.Reason == "" {
		t.Fatal("the error has no reason")
	}
}

// codec decodes one whole packet of a server with the codec alone.
func codec(t testing.TB, version byte, b []byte) packets.Packet {
	t.Helper()
	remaining, width := varint(b[1:])
	if width <= 0 || len(b) != packetSize(remaining) {
		t.Fatalf("% x: not one whole packet", b)
	}
	pk := packets.Packet{ProtocolVersion: version}
	if err := pk.FixedHeader.Decode(b[0]); err != nil {
		t.Fatalf("% x: %v", b, err)
	}
	pk.FixedHeader.Remaining = remaining
	decode := map[byte]func([]byte) error{
		Connect: pk.ConnectDecode, ConnackType: pk.ConnackDecode, Publish: pk.PublishDecode,
		Puback: pk.PubackDecode, Pubrec: pk.PubrecDecode, Pubrel: pk.PubrelDecode, Pubcomp: pk.PubcompDecode,
		Subscribe: pk.SubscribeDecode, Suback: pk.SubackDecode, Unsubscribe: pk.UnsubscribeDecode,
		Unsuback: pk.UnsubackDecode, Disconnect: pk.DisconnectDecode, Pingresp: pk.PingrespDecode,
	}[b[0]>>4]
	if err := decode(b[1+width:]); err != nil {
		t.Fatalf("% x: %v", b, err)
	}
	return pk
}

// encoded is a packet as the codec's own encoder writes it.
func encoded(t testing.TB, encode func(*bytes.Buffer) error) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := encode(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// split returns the head and body of one whole packet of a client.
func split(t testing.TB, b []byte) (head byte, body []byte) {
	t.Helper()
	head, body, n, _, err := Split(b, 0)
	if err != nil || n != len(b) {
		t.Fatalf("% x: split after %d of %d bytes: %v", b, n, len(b), err)
	}
	return head, body
}
