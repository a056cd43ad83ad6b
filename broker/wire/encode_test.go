package wire

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"
)

func TestAcknowledgementsAreWrittenInEachDialect(t *testing.T) {
	five := Dialect{Version: 5}
	tests := []struct {
		name string
		got  []byte
		want []byte
	}{
		{"PUBACK in 3.1.1", Dialect{Version: 4}.AppendAck(nil, Puback, 258, 0, ""), []byte{0x40, 2, 1, 2}},
		{"3.1.1 carries no code", Dialect{Version: 4}.AppendAck(nil, Pubrec, 258, CodeQuota, "full"), []byte{0x50, 2, 1, 2}},
		{"3.1 carries no code", Dialect{Version: 3}.AppendAck(nil, Pubcomp, 258, CodeIDNotFound, "x"), []byte{0x70, 2, 1, 2}},
		{"PUBREL has its flags", five.AppendAck(nil, Pubrel, 258, 0, ""), []byte{0x62, 2, 1, 2}},
		{"3.4.2.1: success is left out", five.AppendAck(nil, Puback, 258, 0, ""), []byte{0x40, 2, 1, 2}},
		{"a code stands alone", five.AppendAck(nil, Puback, 258, 0x97, ""), []byte{0x40, 3, 1, 2, 0x97}},
		{"a reason follows", five.AppendAck(nil, Pubrec, 258, 0x97, "no"), []byte{0x50, 9, 1, 2, 0x97, 5, 0x1f, 0, 2, 'n', 'o'}},
		{"a success may have a reason", five.AppendAck(nil, Puback, 1, 0, "no"), []byte{0x40, 9, 0, 1, 0, 5, 0x1f, 0, 2, 'n', 'o'}},
		{"MQTT-3.1.2-29: terse", Dialect{Version: 5, Terse: true}.AppendAck(nil, Puback, 1, 0x97, "no"), []byte{0x40, 3, 0, 1, 0x97}},
		{"MQTT-3.4.2-2: a reason over the limit is left out", Dialect{Version: 5, Limit: 10}.AppendAck(nil, Puback, 1, 0x97, "no"), []byte{0x40, 3, 0, 1, 0x97}},
		{"a reason that just fits", Dialect{Version: 5, Limit: 11}.AppendAck(nil, Puback, 1, 0x97, "no"), []byte{0x40, 9, 0, 1, 0x97, 5, 0x1f, 0, 2, 'n', 'o'}},
		{"MQTT-3.1.2-24: nothing over the limit", Dialect{Version: 5, Limit: 4}.AppendAck(nil, Puback, 1, 0x97, ""), nil},
		{"a success within a small limit", Dialect{Version: 5, Limit: 4}.AppendAck(nil, Puback, 1, 0, ""), []byte{0x40, 2, 0, 1}},
		{"a reason that is no UTF-8 is left out", five.AppendAck(nil, Puback, 1, 0x97, "a\xff"), []byte{0x40, 3, 0, 1, 0x97}},
		{"a reason with U+0000 is left out", five.AppendAck(nil, Puback, 1, 0x97, "a\x00"), []byte{0x40, 3, 0, 1, 0x97}},
		{"SUBACK in 3.1.1", Dialect{Version: 4}.AppendSuback(nil, 258, []byte{0, 1, 2, 0x80, 0x87, 0x97}, "no"), []byte{0x90, 8, 1, 2, 0, 1, 2, 0x80, 0x80, 0x80}},
		{"SUBACK in 5", five.AppendSuback(nil, 258, []byte{1, 0x87}, ""), []byte{0x90, 5, 1, 2, 0, 1, 0x87}},
		{"SUBACK with a reason", five.AppendSuback(nil, 258, []byte{0x87}, "no"), []byte{0x90, 9, 1, 2, 5, 0x1f, 0, 2, 'n', 'o', 0x87}},
		{"SUBACK, terse", Dialect{Version: 5, Terse: true}.AppendSuback(nil, 1, []byte{0x87}, "no"), []byte{0x90, 4, 0, 1, 0, 0x87}},
		{"SUBACK whose reason is over the limit", Dialect{Version: 5, Limit: 10}.AppendSuback(nil, 1, []byte{0x87}, "no"), []byte{0x90, 4, 0, 1, 0, 0x87}},
		{"SUBACK over the limit", Dialect{Version: 5, Limit: 5}.AppendSuback(nil, 1, []byte{0x87}, "no"), nil},
		{"UNSUBACK in 3.1.1", Dialect{Version: 4}.AppendUnsuback(nil, 258, []byte{0x11}), []byte{0xb0, 2, 1, 2}},
		{"UNSUBACK in 5", five.AppendUnsuback(nil, 258, []byte{0, 0x11}), []byte{0xb0, 5, 1, 2, 0, 0, 0x11}},
		{"DISCONNECT in 3.1.1", Dialect{Version: 4}.AppendDisconnect(nil, 0x8b, "bye"), nil},
		{"DISCONNECT", five.AppendDisconnect(nil, 0x8b, ""), []byte{0xe0, 2, 0x8b, 0}},
		{"DISCONNECT with a reason", five.AppendDisconnect(nil, 0x8b, "no"), []byte{0xe0, 7, 0x8b, 5, 0x1f, 0, 2, 'n', 'o'}},
		{"MQTT-3.1.2-29: DISCONNECT may tell its reason to the terse", Dialect{Version: 5, Terse: true}.AppendDisconnect(nil, 0x8b, "no"), []byte{0xe0, 7, 0x8b, 5, 0x1f, 0, 2, 'n', 'o'}},
		{"MQTT-3.14.2-3: DISCONNECT whose reason is over the limit", Dialect{Version: 5, Limit: 8}.AppendDisconnect(nil, 0x8b, "no"), []byte{0xe0, 2, 0x8b, 0}},
		{"DISCONNECT over the limit", Dialect{Version: 5, Limit: 3}.AppendDisconnect(nil, 0x8b, "no"), nil},
		{"PINGRESP", AppendPingresp(nil), []byte{0xd0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !bytes.Equal(tt.got, tt.want) {
				t.Errorf("% x, want % x", tt.got, tt.want)
			}
		})
	}
}

func TestReasonsAreCutAtARune(t *testing.T) {
	for _, reason := range []string{strings.Repeat("a", 500), strings.Repeat("ä", 300), "x" + strings.Repeat("ä", 300), strings.Repeat("😀", 90)} {
		pk := codec(t, 5, Dialect{Version: 5}.AppendAck(nil, Puback, 1, CodeQuota, reason))
		got := pk.Properties.ReasonString
		if len(got) > maxReason || len(got) <= maxReason-utf8.UTFMax || !strings.HasPrefix(reason, got) || !utf8.ValidString(got) {
			t.Errorf("%d bytes %q of %d", len(got), got, len(reason))
		}
	}
}

func TestEncodersOnlyAppend(t *testing.T) {
	d := Dialect{Version: 5}
	o := &Out{Topic: "t", Payload: []byte("p")}
	appends := []func([]byte) []byte{
		func(b []byte) []byte { return d.AppendAck(b, Puback, 1, CodeQuota, "r") },
		func(b []byte) []byte { return d.AppendConnack(b, &Connack{Reason: "r"}) },
		func(b []byte) []byte { return d.AppendSuback(b, 1, []byte{0}, "r") },
		func(b []byte) []byte { return d.AppendUnsuback(b, 1, []byte{0}) },
		func(b []byte) []byte { return d.AppendDisconnect(b, 0, "r") },
		func(b []byte) []byte { return d.AppendPublish(b, o) },
		AppendPingresp,
	}
	var all, want []byte
	for _, f := range appends {
		all = f(all)
		want = append(want, f(nil)...)
	}
	if !bytes.Equal(all, want) {
		t.Errorf("% x\n% x", all, want)
	}
}

func TestTheCodecReadsWhatIsWritten(t *testing.T) {
	d := Dialect{Version: 5}
	for _, packetType := range []byte{Puback, Pubrec, Pubrel, Pubcomp} {
		pk := codec(t, 5, d.AppendAck(nil, packetType, 513, CodeIDNotFound, "gone"))
		if pk.PacketID != 513 || pk.ReasonCode != CodeIDNotFound || pk.Properties.ReasonString != "gone" {
			t.Errorf("type %d: %+v", packetType, pk)
		}
	}
	pk := codec(t, 5, d.AppendSuback(nil, 513, []byte{1, 0x87}, "no"))
	if pk.PacketID != 513 || !bytes.Equal(pk.ReasonCodes, []byte{1, 0x87}) || pk.Properties.ReasonString != "no" {
		t.Errorf("SUBACK: %+v", pk)
	}
	pk = codec(t, 5, d.AppendUnsuback(nil, 513, []byte{0, 0x11}))
	if pk.PacketID != 513 || !bytes.Equal(pk.ReasonCodes, []byte{0, 0x11}) {
		t.Errorf("UNSUBACK: %+v", pk)
	}
	pk = codec(t, 5, d.AppendDisconnect(nil, CodeTakenOver, "no"))
	if pk.ReasonCode != CodeTakenOver || pk.Properties.ReasonString != "no" {
		t.Errorf("DISCONNECT: %+v", pk)
	}
}

func TestConnackIsReadByTheCodec(t *testing.T) {
	expiry, alive := uint32(0), uint16(0)
	pk := codec(t, 5, Dialect{Version: 5, Terse: true}.AppendConnack(nil, &Connack{
		SessionPresent: true, Reason: "welcome", SessionExpiry: &expiry, ReceiveMaximum: 64, MaximumPacket: 1 << 18,
		AssignedID: "auto-1", AliasMaximum: 16, KeepAlive: &alive, ResponseInfo: "r/",
	}))
	want := packets.Properties{
		ReasonString: "welcome", SessionExpiryIntervalFlag: true, ReceiveMaximum: 64, MaximumPacketSize: 1 << 18,
		AssignedClientID: "auto-1", TopicAliasMaximum: 16, ServerKeepAliveFlag: true, ResponseInfo: "r/",
	}
	if diff := cmp.Diff(want, pk.Properties); diff != "" || !pk.SessionPresent || pk.ReasonCode != 0 {
		t.Errorf("present %v code %d %s", pk.SessionPresent, pk.ReasonCode, diff)
	}
}

func TestConnackSaysOnlyWhatItMust(t *testing.T) {
	five := Dialect{Version: 5}
	long := &Connack{Reason: strings.Repeat("r", 100), ResponseInfo: "i", AssignedID: "a"}
	tests := []struct {
		name string
		got  []byte
		want []byte
	}{
		{"absent values", five.AppendConnack(nil, &Connack{}), []byte{0x20, 3, 0, 0, 0}},
		{"MQTT-3.2.2-6: no session present with a failure", five.AppendConnack(nil, &Connack{SessionPresent: true, Code: 0x87}), []byte{0x20, 3, 0, 0x87, 0}},
		{"MQTT-3.2.2-19: a reason over the limit is left out", Dialect{Version: 5, Limit: 100}.AppendConnack(nil, long), []byte{0x20, 7, 0, 0, 4, 0x12, 0, 1, 'a'}},
		{"MQTT-3.1.2-24: nothing over the limit", Dialect{Version: 5, Limit: 8}.AppendConnack(nil, long), nil},
		{"session present in 3.1.1", Dialect{Version: 4}.AppendConnack(nil, &Connack{SessionPresent: true, AssignedID: "x"}), []byte{0x20, 2, 1, 0}},
		{"3.1 knows no session present", Dialect{Version: 3}.AppendConnack(nil, &Connack{SessionPresent: true}), []byte{0x20, 2, 0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !bytes.Equal(tt.got, tt.want) {
				t.Errorf("% x, want % x", tt.got, tt.want)
			}
		})
	}
}

func TestConnackCodesBecomeReturnCodes(t *testing.T) {
	want := map[byte]byte{
		CodeSuccess: 0, CodeBadVersion: 1, CodeBadClientID: 2, CodeUnavailable: 3, CodeServerBusy: 3, CodeShuttingDown: 3,
		CodeUnspecified: 3, CodeImplementation: 3, CodeQuota: 3, CodeRate: 3, CodeUseAnother: 3, CodeServerMoved: 3,
		CodeConnectionRate: 3, CodeBadPassword: 4, CodeBadAuthMethod: 4, CodeNotAuthorized: 5, CodeBanned: 5,
	}
	for code := range 256 {
		got := Dialect{Version: 4}.AppendConnack(nil, &Connack{Code: byte(code)})
		if returned, ok := want[byte(code)]; ok {
			if !bytes.Equal(got, []byte{0x20, 2, 0, returned}) {
				t.Errorf("0x%02x: % x, want return code %d", code, got, returned)
			}
		} else if len(got) > 0 { // MQTT 3.1.1, MQTT-3.2.2-6: closed without an answer
			t.Errorf("0x%02x: % x", code, got)
		}
	}
}
