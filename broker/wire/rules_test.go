package wire

import (
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// rule is one body and the code that it is refused with; 0 takes it.
type rule struct {
	name    string
	version byte
	body    []byte
	code    byte
}

func checkRules(t *testing.T, rules []rule, decode func(*Decoder, []byte, byte) error) {
	t.Helper()
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			var d Decoder
			wantCode(t, decode(&d, r.body, r.version), r.code)
		})
	}
}

func decodeConnect(d *Decoder, body []byte, _ byte) error { _, err := d.Connect(body); return err }

func decodeSubscribe(d *Decoder, body []byte, version byte) error {
	_, err := d.Subscribe(body, version)
	return err
}

func decodeUnsubscribe(d *Decoder, body []byte, version byte) error {
	_, err := d.Unsubscribe(body, version)
	return err
}

func decodeDisconnect(d *Decoder, body []byte, version byte) error {
	_, err := d.Disconnect(body, version)
	return err
}

const surrogate = "\xed\xa0\x80" // U+D800 in UTF-8's form

func TestConnectRules(t *testing.T) {
	five := func(props ...any) []byte { return connectBody(5, 2, block(props...), "c") }
	will := func(version byte, flags int, rest ...any) []byte {
		return connectBody(version, flags|flagWill, rest...)
	}
	checkRules(t, []rule{
		{"3.1 is taken", 3, connectBody(3, 2, "c"), 0},
		{"3.1.1 is taken", 4, connectBody(4, 2, "c"), 0},
		{"5 is taken", 5, five(), 0},
		{"5 with an empty client id is taken", 5, connectBody(5, 2, block(), ""), 0},
		{"MQTT-3.1.2-1: another protocol name", 4, join("MQTX", 4, 2, uint16(0), "c"), CodeMalformed},
		{"MQTT-3.1.2-1: an empty protocol name", 4, join("", 4, 2, uint16(0), "c"), CodeMalformed},
		{"MQTT-3.1.2-2: MQTT version 6", 6, join("MQTT", 6, 2, uint16(0), "c"), CodeBadVersion},
		{"MQTT-3.1.2-2: MQTT version 3", 3, join("MQTT", 3, 2, uint16(0), "c"), CodeBadVersion},
		{"MQTT-3.1.2-2: a bridge's version 0x84", 4, join("MQTT", 0x84, 2, uint16(0), "c"), CodeBadVersion},
		{"MQTT-3.1.2-2: MQIsdp version 4", 4, join("MQIsdp", 4, 2, uint16(0), "c"), CodeBadVersion},
		{"an unknown version is told even when what follows cannot be read", 9, join("MQTT", 9), CodeBadVersion},
		{"MQTT-3.1.2-3: the reserved flag", 4, connectBody(4, 3, "c"), CodeMalformed},
		{"MQTT-3.1.2-11: a will QoS without a will", 4, connectBody(4, 2|1<<3, "c"), CodeMalformed},
		{"MQTT-3.1.2-13: will retain without a will", 5, connectBody(5, 2|flagWillRetain, block(), "c"), CodeMalformed},
		{"MQTT-3.1.2-12: will QoS 3", 4, will(4, 3<<3, "c", "t", "m"), CodeMalformed},
		{"a will is taken", 4, will(4, 1<<3|flagWillRetain, "c", "t", "m"), 0},
		{"a will with an empty payload is taken", 4, will(4, 0, "c", "t", ""), 0},
		{"MQTT-3.1.2-9: a will without a payload", 4, will(4, 0, "c", "t"), CodeMalformed},
		{"MQTT-4.7.3-1: an empty will topic", 4, will(4, 0, "c", "", "m"), CodeProtocolError},
		{"MQTT-3.1.3-11: a will topic that is not UTF-8", 4, will(4, 0, "c", "\xff", "m"), CodeMalformed},
		{"MQTT-3.3.2-2: a will topic with a wildcard", 4, will(4, 0, "c", "a/#", "m"), CodeProtocolError},
		{"MQTT 3.1.1, MQTT-3.1.2-22: a password without a user name", 4, connectBody(4, flagPassword, "c", "p"), CodeProtocolError},
		{"3.1.2.9: a password without a user name in MQTT 5", 5, connectBody(5, flagPassword, block(), "c", "p"), 0},
		{"an empty password is taken", 4, connectBody(4, flagUsername|flagPassword, "c", "token", ""), 0},
		{"MQTT-3.1.2-17: a user name that is missing", 4, connectBody(4, flagUsername, "c"), CodeMalformed},
		{"MQTT-3.1.2-19: a password that is missing", 4, connectBody(4, flagUsername|flagPassword, "c", "u"), CodeMalformed},
		{"MQTT-3.1.2-16: a user name without its flag", 4, connectBody(4, 2, "c", "u"), CodeMalformed},
		{"bytes after the last field", 5, connectBody(5, 2, block(), "c", 0), CodeMalformed},
		{"MQTT-3.1.3-4: a client id that is not UTF-8", 4, connectBody(4, 2, "\xc3\x28"), CodeMalformed},
		{"MQTT-1.5.4-1: a client id with a surrogate", 4, connectBody(4, 2, surrogate), CodeMalformed},
		{"MQTT-1.5.4-2: a client id with U+0000", 4, connectBody(4, 2, "a\x00b"), CodeMalformed},
		{"MQTT-3.1.3-12: a user name that is not UTF-8", 4, connectBody(4, flagUsername, "c", "\xff"), CodeMalformed},
		{"MQTT-1.5.4-2: a user name with U+0000", 5, connectBody(5, flagUsername, block(), "c", "\x00"), CodeMalformed},
		{"a password may be any bytes", 4, connectBody(4, flagUsername|flagPassword, "c", "u", "\x00\xff"), 0},
		{"a property length beyond the body", 5, connectBody(5, 2, 0x7f, "c"), CodeMalformed},
		{"MQTT-1.5.5-1: a property length that is overlong", 5, connectBody(5, 2, 0x80, 0x00, "c"), CodeMalformed},
		{"a property that is cut off by the block's end", 5, connectBody(5, 2, 3, packets.PropSessionExpiryInterval, uint32(1), "c"), CodeMalformed},
		{"2.2.2.2: a property of another packet", 5, five(packets.PropTopicAlias, uint16(1)), CodeMalformed},
		{"2.2.2.2: a will's property outside the will", 5, five(packets.PropWillDelayInterval, uint32(1)), CodeMalformed},
		{"2.2.2.2: a property that does not exist", 5, five(0x7f), CodeMalformed},
		{"2.2.2.2: a property number of two bytes", 5, five(0x91, 0x00), CodeMalformed},
		{"3.1.2.11.2: session expiry twice", 5, five(packets.PropSessionExpiryInterval, uint32(1), packets.PropSessionExpiryInterval, uint32(1)), CodeProtocolError},
		{"3.1.2.11.3: receive maximum 0", 5, five(packets.PropReceiveMaximum, uint16(0)), CodeProtocolError},
		{"3.1.2.11.3: receive maximum twice", 5, five(packets.PropReceiveMaximum, uint16(1), packets.PropReceiveMaximum, uint16(1)), CodeProtocolError},
		{"3.1.2.11.4: maximum packet size 0", 5, five(packets.PropMaximumPacketSize, uint32(0)), CodeProtocolError},
		{"3.1.2.11.5: topic alias maximum 0 is taken", 5, five(packets.PropTopicAliasMaximum, uint16(0)), 0},
		{"3.1.2.11.6: request response information 2", 5, five(packets.PropRequestResponseInfo, 2), CodeProtocolError},
		{"3.1.2.11.7: request problem information 2", 5, five(packets.PropRequestProblemInfo, 2), CodeProtocolError},
		{"3.1.2.11.8: user properties twice are taken", 5, five(packets.PropUser, "a", "b", packets.PropUser, "a", "b"), 0},
		{"MQTT-1.5.7-1: a user property that is not UTF-8", 5, five(packets.PropUser, "a", "\xff"), CodeMalformed},
		{"3.1.2.11.9: authentication method", 5, five(packets.PropAuthenticationMethod, "SCRAM"), 0},
		{"3.1.2.11.10: authentication data without method", 5, five(packets.PropAuthenticationData, "x"), CodeProtocolError},
		{"3.1.3.2: a will's properties", 5, will(5, 0, block(), "c", block(packets.PropWillDelayInterval, uint32(1)), "t", "m"), 0},
		{"3.1.3.2.2: will delay twice", 5, will(5, 0, block(), "c", block(packets.PropWillDelayInterval, uint32(1), packets.PropWillDelayInterval, uint32(1)), "t", "m"), CodeProtocolError},
		{"3.1.3.2.3: a will's payload format 2", 5, will(5, 0, block(), "c", block(packets.PropPayloadFormat, 2), "t", "m"), CodeProtocolError},
		{"3.1.3.2.6: a will's response topic with a wildcard", 5, will(5, 0, block(), "c", block(packets.PropResponseTopic, "a/+"), "t", "m"), CodeProtocolError},
		{"2.2.2.2: a topic alias in a will", 5, will(5, 0, block(), "c", block(packets.PropTopicAlias, uint16(1)), "t", "m"), CodeMalformed},
	}, decodeConnect)
}

func TestPublishRules(t *testing.T) {
	type publishRule struct {
		name    string
		head    int
		version byte
		body    []byte
		code    byte
	}
	five := func(props ...any) []byte { return join("t", block(props...), raw("x")) }
	tests := []publishRule{
		{"QoS 0 is taken", 0x30, 4, join("t", raw("x")), 0},
		{"an empty payload is taken", 0x31, 4, join("t"), 0},
		{"MQTT-3.3.1-4: QoS 3", 0x36, 4, join("t", uint16(1)), CodeMalformed},
		{"MQTT-3.3.1-2: DUP with QoS 0", 0x38, 4, join("t"), CodeMalformed},
		{"another packet", 0x40, 4, join("t"), CodeMalformed},
		{"MQTT-2.2.1-3: packet identifier 0", 0x32, 4, join("t", uint16(0)), CodeProtocolError},
		{"MQTT-2.2.1-3: packet identifier 0 with QoS 2", 0x34, 5, join("t", uint16(0), block()), CodeProtocolError},
		{"a packet identifier that is missing", 0x32, 4, join("t", 1), CodeMalformed},
		{"a topic that is cut off", 0x30, 4, join(uint16(5), raw("abc")), CodeMalformed},
		{"nothing at all", 0x30, 4, nil, CodeMalformed},
		{"MQTT-3.3.2-1: a topic that is not UTF-8", 0x30, 4, join("a\xff"), CodeMalformed},
		{"MQTT-1.5.4-1: a topic with a surrogate", 0x30, 5, join(surrogate, block()), CodeMalformed},
		{"MQTT-1.5.4-2: a topic with U+0000", 0x30, 4, join("a\x00"), CodeMalformed},
		{"MQTT-3.3.2-2: a topic with +", 0x30, 4, join("a/+/b"), CodeProtocolError},
		{"MQTT-3.3.2-2: a topic with #", 0x30, 5, join("a#", block()), CodeProtocolError},
		{"MQTT-4.7.3-1: an empty topic in 3.1.1", 0x30, 4, join(""), CodeProtocolError},
		{"3.3.2.1: an empty topic without alias", 0x30, 5, join("", block()), CodeProtocolError},
		{"3.3.2.3.4: an empty topic with an alias", 0x30, 5, join("", block(packets.PropTopicAlias, uint16(3))), 0},
		{"MQTT-3.3.2-8: topic alias 0", 0x30, 5, five(packets.PropTopicAlias, uint16(0)), CodeBadAlias},
		{"3.3.2.3.4: topic alias twice", 0x30, 5, five(packets.PropTopicAlias, uint16(1), packets.PropTopicAlias, uint16(1)), CodeProtocolError},
		{"3.3.2.3.2: payload format 2", 0x30, 5, five(packets.PropPayloadFormat, 2), CodeProtocolError},
		{"3.3.2.3.2: payload format twice", 0x30, 5, five(packets.PropPayloadFormat, 1, packets.PropPayloadFormat, 1), CodeProtocolError},
		{"3.3.2.3.3: message expiry twice", 0x30, 5, five(packets.PropMessageExpiryInterval, uint32(1), packets.PropMessageExpiryInterval, uint32(2)), CodeProtocolError},
		{"MQTT-3.3.2-14: a response topic with a wildcard", 0x30, 5, five(packets.PropResponseTopic, "a/#"), CodeProtocolError},
		{"MQTT-3.3.2-13: a response topic that is not UTF-8", 0x30, 5, five(packets.PropResponseTopic, "\xff"), CodeMalformed},
		{"MQTT-4.7.3-1: an empty response topic", 0x30, 5, five(packets.PropResponseTopic, ""), CodeProtocolError},
		{"3.3.2.3.5: a response topic twice", 0x30, 5, five(packets.PropResponseTopic, "a", packets.PropResponseTopic, "a"), CodeProtocolError},
		{"3.3.2.3.6: correlation data twice", 0x30, 5, five(packets.PropCorrelationData, "a", packets.PropCorrelationData, "a"), CodeProtocolError},
		{"3.3.2.3.6: correlation data may be any bytes", 0x30, 5, five(packets.PropCorrelationData, "\xff\x00"), 0},
		{"MQTT-3.3.2-19: a content type that is not UTF-8", 0x30, 5, five(packets.PropContentType, "\xff"), CodeMalformed},
		{"3.3.2.3.9: a content type twice", 0x30, 5, five(packets.PropContentType, "a", packets.PropContentType, "a"), CodeProtocolError},
		{"MQTT-3.3.4-6: a client's subscription identifier", 0x30, 5, five(packets.PropSubscriptionIdentifier, 1), CodeProtocolError},
		{"MQTT-1.5.7-1: a user property with U+0000", 0x30, 5, five(packets.PropUser, "\x00", ""), CodeMalformed},
		{"3.3.2.3.7: user properties of one name are taken", 0x30, 5, five(packets.PropUser, "a", "", packets.PropUser, "a", ""), 0},
		{"2.2.2.2: a property of another packet", 0x30, 5, five(packets.PropReceiveMaximum, uint16(1)), CodeMalformed},
		{"a property length beyond the body", 0x30, 5, join("t", 5, 1), CodeMalformed},
		{"a property length of five bytes", 0x30, 5, join("t", raw("\xff\xff\xff\xff\x01")), CodeMalformed},
		{"a property length that is missing", 0x30, 5, join("t"), CodeMalformed},
		{"a string beyond the property block", 0x30, 5, join("t", 4, packets.PropContentType, uint16(9), raw("payload goes on")), CodeMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d Decoder
			_, err := d.Publish(byte(tt.head), tt.body, tt.version)
			wantCode(t, err, tt.code)
		})
	}
}

func TestSubscribeRules(t *testing.T) {
	five := func(rest ...any) []byte { return append(join(uint16(7), block()), join(rest...)...) }
	checkRules(t, []rule{
		{"one filter is taken", 4, join(uint16(1), "a/#", 2), 0},
		{"all options of MQTT 5 are taken", 5, five("a", 0x2e), 0},
		{"MQTT-2.2.1-3: packet identifier 0", 4, join(uint16(0), "a", 0), CodeProtocolError},
		{"MQTT-3.8.3-2: no filter", 4, join(uint16(1)), CodeProtocolError},
		{"MQTT-3.8.3-2: no filter in MQTT 5", 5, five(), CodeProtocolError},
		{"MQTT-3.8.3-1: a filter that is not UTF-8", 4, join(uint16(1), "\xff", 0), CodeMalformed},
		{"MQTT-4.7.3-2: a filter with U+0000", 5, five("a\x00", 0), CodeMalformed},
		{"MQTT-4.7.3-1: an empty filter", 4, join(uint16(1), "", 0), CodeProtocolError},
		{"the options byte is missing, which makes the codec panic", 5, five("a"), CodeMalformed},
		{"the options byte is missing in 3.1.1", 4, join(uint16(1), "a"), CodeMalformed},
		{"the second filter is cut off", 4, join(uint16(1), "a", 0, uint16(4), raw("b")), CodeMalformed},
		{"MQTT-3.8.3-5: reserved option bits", 5, five("a", 0x40), CodeMalformed},
		{"MQTT 3.1.1, MQTT-3-8.3-4: reserved option bits", 4, join(uint16(1), "a", 0x04), CodeMalformed},
		{"3.8.3.1: QoS 3", 4, join(uint16(1), "a", 3), CodeProtocolError},
		{"3.8.3.1: QoS 3 in MQTT 5", 5, five("a", 3), CodeProtocolError},
		{"3.8.3.1: retain handling 3", 5, five("a", 0x30), CodeProtocolError},
		{"MQTT-3.8.3-4: No Local on a shared subscription", 5, five("$share/g/a", 0x04), CodeProtocolError},
		{"No Local on another filter of $", 5, five("$shared/g/a", 0x04), 0},
		{"3.8.2.1.2: subscription identifier 0", 5, join(uint16(1), block(packets.PropSubscriptionIdentifier, 0), "a", 0), CodeProtocolError},
		{"3.8.2.1.2: subscription identifier twice", 5, join(uint16(1), block(packets.PropSubscriptionIdentifier, 1, packets.PropSubscriptionIdentifier, 1), "a", 0), CodeProtocolError},
		{"MQTT-1.5.5-1: an overlong subscription identifier", 5, join(uint16(1), block(packets.PropSubscriptionIdentifier, 0x81, 0), "a", 0), CodeMalformed},
		{"a subscription identifier of five bytes", 5, join(uint16(1), block(packets.PropSubscriptionIdentifier, raw("\xff\xff\xff\xff\x01")), "a", 0), CodeMalformed},
		{"a property length beyond the body, which makes the codec panic", 5, join(uint16(1), 0x20, "a", 0), CodeMalformed},
		{"2.2.2.2: a property of another packet", 5, join(uint16(1), block(packets.PropContentType, "a"), "a", 0), CodeMalformed},
	}, decodeSubscribe)
}

func TestUnsubscribeRules(t *testing.T) {
	checkRules(t, []rule{
		{"one filter is taken", 4, join(uint16(1), "a"), 0},
		{"user properties are taken", 5, join(uint16(1), block(packets.PropUser, "a", "b"), "a"), 0},
		{"MQTT-2.2.1-3: packet identifier 0", 5, join(uint16(0), block(), "a"), CodeProtocolError},
		{"MQTT-3.10.3-2: no filter", 4, join(uint16(1)), CodeProtocolError},
		{"MQTT-3.10.3-2: no filter in MQTT 5", 5, join(uint16(1), block()), CodeProtocolError},
		{"MQTT-3.10.3-1: a filter that is not UTF-8", 4, join(uint16(1), "\xff"), CodeMalformed},
		{"MQTT-4.7.3-1: an empty filter", 4, join(uint16(1), ""), CodeProtocolError},
		{"a filter that is cut off", 4, join(uint16(1), uint16(3), raw("a")), CodeMalformed},
		{"2.2.2.2: a property of another packet", 5, join(uint16(1), block(packets.PropSubscriptionIdentifier, 1), "a"), CodeMalformed},
		{"a property length beyond the body", 5, join(uint16(1), 0x20, "a"), CodeMalformed},
	}, decodeUnsubscribe)
}

func TestDisconnectRules(t *testing.T) {
	rules := []rule{
		{"empty in 3.1.1", 4, nil, 0},
		{"MQTT 3.1.1, 3.14: a body", 4, []byte{0}, CodeMalformed},
		{"empty in MQTT 5", 5, nil, 0},
		{"a session expiry", 5, join(0, block(packets.PropSessionExpiryInterval, uint32(9))), 0},
		{"3.14.2.2.2: a session expiry twice", 5, join(0, block(packets.PropSessionExpiryInterval, uint32(9), packets.PropSessionExpiryInterval, uint32(9))), CodeProtocolError},
		{"3.14.2.2.3: a reason string twice", 5, join(0, block(packets.PropReasonString, "a", packets.PropReasonString, "a")), CodeProtocolError},
		{"3.14.2.2.5: a server reference, which only a server sends", 5, join(0, block(packets.PropServerReference, "a")), CodeMalformed},
		{"a property length beyond the body", 5, join(0, 9), CodeMalformed},
		{"bytes after the properties", 5, join(0, block(), 1), CodeMalformed},
	}
	client := "\x00\x04\x80\x81\x82\x83\x90\x93\x94\x95\x96\x97\x98\x99"
	for code := range 256 {
		want := CodeProtocolError
		if strings.IndexByte(client, byte(code)) >= 0 {
			want = CodeSuccess
		}
		rules = append(rules, rule{"MQTT-3.14.2-1: reason code " + hex(byte(code)), 5, []byte{byte(code)}, want})
	}
	checkRules(t, rules, decodeDisconnect)
}

func hex(b byte) string {
	const digits = "0123456789abcdef"
	return "0x" + string(digits[b>>4]) + string(digits[b&15])
}

func TestAckRules(t *testing.T) {
	first, second := "\x00\x10\x80\x83\x87\x90\x91\x97\x99", "\x00\x92"
	for head, codes := range map[byte]string{0x40: first, 0x50: first, 0x62: second, 0x70: second} {
		rules := []rule{
			{"3.1.1 is taken", 4, join(uint16(1)), 0},
			{"MQTT 5 without a code is taken", 5, join(uint16(1)), 0},
			{"MQTT-2.2.1-3: packet identifier 0", 4, join(uint16(0)), CodeProtocolError},
			{"a packet identifier that is cut off", 4, join(1), CodeMalformed},
			{"bytes after the packet identifier in 3.1.1", 4, join(uint16(1), 0), CodeMalformed},
			{"properties are taken", 5, join(uint16(1), 0, block(packets.PropReasonString, "r", packets.PropUser, "a", "b")), 0},
			{"3.4.2.2.2: a reason string twice", 5, join(uint16(1), 0, block(packets.PropReasonString, "r", packets.PropReasonString, "r")), CodeProtocolError},
			{"2.2.2.2: a property of another packet", 5, join(uint16(1), 0, block(packets.PropTopicAlias, uint16(1))), CodeMalformed},
			{"a property length beyond the body", 5, join(uint16(1), 0, 1), CodeMalformed},
			{"bytes after the properties", 5, join(uint16(1), 0, block(), 0), CodeMalformed},
		}
		for code := range 256 {
			want := CodeProtocolError
			if strings.IndexByte(codes, byte(code)) >= 0 {
				want = CodeSuccess
			}
			rules = append(rules, rule{"MQTT-3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1: reason code " + hex(byte(code)), 5, join(uint16(1), code), want})
		}
		t.Run(hex(head), func(t *testing.T) {
			checkRules(t, rules, func(d *Decoder, body []byte, version byte) error {
				id, code, err := d.Ack(head, body, version)
				if err == nil && (id != 1 || (len(body) > 2 && code != body[2]) || (len(body) == 2 && code != 0)) {
					t.Errorf("% x: id %d code 0x%02x", body, id, code)
				}
				return err
			})
		})
	}
	var d Decoder
	for _, head := range []byte{0x30, 0x42, 0x60, 0x80} {
		_, _, err := d.Ack(head, join(uint16(1)), 4)
		wantCode(t, err, CodeMalformed)
	}
}

func TestPingHasNoBody(t *testing.T) {
	wantCode(t, CheckPing(nil), CodeSuccess)
	wantCode(t, CheckPing([]byte{0}), CodeMalformed)
}

func TestConnectVersionTellsHowToRefuse(t *testing.T) {
	for body, want := range map[string]byte{
		string(connectBody(3, 2)): 3, string(connectBody(4, 2)): 4, string(connectBody(5, 2)): 5,
		string(join("MQTT", 6)): 0, string(join("MQTT")): 0, string(join("MQIsdp", 4)): 0, "": 0, "\xff\xff": 0,
	} {
		if got := ConnectVersion([]byte(body)); got != want {
			t.Errorf("%q: version %d, want %d", body, got, want)
		}
	}
}

func TestAPanicOfTheCodecIsAMalformedPacket(t *testing.T) {
	d := Decoder{pk: packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: Subscribe}}}
	// The guard refuses this body; here it reaches the codec, which reads behind its end.
	e := d.run(Subscribe, join(uint16(1), block(), "a"))
	if e == nil || e.Code != CodeMalformed {
		t.Fatalf("got %v", e)
	}
	if e = d.run(Subscribe, join(uint16(1), block(), "a", 9)); e != nil && e.Code != CodeMalformed {
		t.Fatalf("after the panic: %v", e)
	}
}
