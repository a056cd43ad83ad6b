package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Each fuzzer checks that nothing panics, that every refusal is an *Error, and
// that what decodes, written again, decodes to the same.

// refused tells whether a decoder refused its input, and checks how.
func refused(t *testing.T, err error) bool {
	t.Helper()
	if err == nil {
		return false
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.Code < CodeUnspecified || e.Reason == "" {
		t.Fatalf("refused with %#v", err)
	}
	return true
}

func same(t *testing.T, first, second any, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("what was taken is refused when written again: %v\n%+v", err, first)
	}
	if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
		t.Fatal(diff)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte{0xc0, 0, 0x30, 3, 0, 1, 't'}, 0)
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, 1<<18)
	f.Add([]byte{0x30, 0x80, 0x80, 0x80, 0x80, 1}, 0)
	f.Add(append([]byte{0x32, 0x80, 1}, make([]byte, 130)...), 130)
	f.Fuzz(func(t *testing.T, in []byte, limit int) {
		head, body, n, need, err := Split(in, limit)
		if refused(t, err) {
			if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeTooLarge && need <= limit {
				t.Fatalf("%d bytes are too large for %d", need, limit)
			}
			return
		}
		if n == 0 {
			if need > 0 && need <= len(in) || body != nil {
				t.Fatalf("%d bytes are needed, %d are there", need, len(in))
			}
			return
		}
		again := append(appendVarint([]byte{head}, len(body)), body...)
		if n != need || !bytes.Equal(again, in[:n]) || (limit > 0 && n > limit) {
			t.Fatalf("n %d, need %d: % x", n, need, again)
		}
		for short := range n { // however the bytes come in, the packet is the same
			if _, _, part, need, err := Split(in[:short], limit); err != nil || part != 0 || (need != 0 && need != n) {
				t.Fatalf("of %d bytes: n %d, need %d, %v", short, part, need, err)
			}
		}
	})
}

func FuzzConnect(f *testing.F) {
	f.Add(connectBody(3, 2, "c"))
	f.Add(connectBody(4, 0xc2, "c", "token", ""))
	f.Add(connectBody(4, 0xee, "c", "will/topic", "gone", "u", "p"))
	f.Add(connectBody(5, 0xee, block(packets.PropSessionExpiryInterval, uint32(60), packets.PropReceiveMaximum, uint16(3),
		packets.PropMaximumPacketSize, uint32(512), packets.PropTopicAliasMaximum, uint16(2), packets.PropRequestProblemInfo, 0,
		packets.PropRequestResponseInfo, 1, packets.PropAuthenticationMethod, "m", packets.PropAuthenticationData, "d",
		packets.PropUser, "k", "v"), "c",
		block(packets.PropWillDelayInterval, uint32(5), packets.PropContentType, "t", packets.PropMessageExpiryInterval, uint32(7),
			packets.PropUser, "k", "v"), "t", "m", "u", "p"))
	f.Add(connectBody(5, 2, 0x7f))
	f.Fuzz(func(t *testing.T, body []byte) {
		var d, d2 Decoder
		p, err := d.Connect(body)
		if version := ConnectVersion(body); err == nil && p.Version != version {
			t.Fatalf("version %d, and %d", p.Version, version)
		}
		if refused(t, err) {
			return
		}
		again, err := d2.Connect(rewriteConnect(p))
		same(t, p, again, err)
	})
}

func rewriteConnect(p *ConnectPacket) []byte {
	flags := 0
	for bit, set := range map[int]bool{flagCleanStart: p.CleanStart, flagWill: p.Will != nil, flagPassword: p.HasPassword, flagUsername: p.HasUsername} {
		if set {
			flags |= bit
		}
	}
	var rest []byte
	if p.Version == 5 {
		rest = block(packets.PropSessionExpiryInterval, p.SessionExpiry, packets.PropReceiveMaximum, p.ReceiveMaximum,
			packets.PropTopicAliasMaximum, p.AliasMaximum, packets.PropRequestProblemInfo, one(p.ProblemInfo),
			packets.PropRequestResponseInfo, one(p.ResponseInfo), has(p.MaximumPacket > 0, packets.PropMaximumPacketSize, p.MaximumPacket),
			has(p.AuthMethod != "", packets.PropAuthenticationMethod, p.AuthMethod))
	}
	rest = append(rest, join(p.ClientID)...)
	if w := p.Will; w != nil {
		flags |= int(w.QoS)<<3 | int(one(w.Retain))<<5
		if p.Version == 5 {
			rest = append(rest, block(w.Props, packets.PropWillDelayInterval, w.Delay, has(w.HasExpiry, packets.PropMessageExpiryInterval, w.Expiry))...)
		}
		rest = append(rest, join(w.Topic, string(w.Payload))...)
	}
	rest = append(rest, has(p.HasUsername, p.Username)...)
	rest = append(rest, has(p.HasPassword, string(p.Password))...)
	body := connectBody(p.Version, flags)
	body[len(body)-2], body[len(body)-1] = byte(p.KeepAlive>>8), byte(p.KeepAlive)
	return append(body, rest...)
}

func one(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func has(ok bool, parts ...any) []byte {
	if ok {
		return join(parts...)
	}
	return nil
}

func FuzzPublish(f *testing.F) {
	f.Add(byte(0x30), byte(4), join("devices/me/telemetry", raw(`{"t":1}`)))
	f.Add(byte(0x3d), byte(5), join("t", uint16(1), block(packets.PropUser, "a", "b", packets.PropTopicAlias, uint16(1),
		packets.PropContentType, "t", packets.PropMessageExpiryInterval, uint32(7), packets.PropResponseTopic, "r",
		packets.PropCorrelationData, "c", packets.PropPayloadFormat, 1), raw("p")))
	f.Add(byte(0x32), byte(5), join("", uint16(9), block(packets.PropTopicAlias, uint16(1))))
	f.Add(byte(0x30), byte(5), join("t", 0xff, 0xff, 0xff, 0xff, 1))
	f.Fuzz(func(t *testing.T, head, version byte, body []byte) {
		var d, d2 Decoder
		p, err := d.Publish(head, body, version)
		if refused(t, err) {
			return
		}
		o := &Out{
			Topic: p.Topic, ID: p.ID, QoS: p.QoS, Dup: p.Dup, Retain: p.Retain, Alias: p.Alias,
			HasExpiry: p.HasExpiry, Expiry: p.Expiry, Props: p.Props, Payload: p.Payload,
		}
		dialect := Dialect{Version: version}
		b := dialect.AppendPublish(nil, o)
		if len(b) != dialect.PublishSize(o) {
			t.Fatalf("%d bytes, PublishSize says %d", len(b), dialect.PublishSize(o))
		}
		head, body = split(t, b)
		again, err := d2.Publish(head, body, version)
		same(t, p, again, err)
	})
}

func FuzzAck(f *testing.F) {
	f.Add(byte(0x40), byte(4), join(uint16(1)))
	f.Add(byte(0x50), byte(5), join(uint16(1), 0x97, block(packets.PropReasonString, "r", packets.PropUser, "a", "b")))
	f.Add(byte(0x62), byte(5), join(uint16(65535), 0x92))
	f.Add(byte(0x70), byte(5), join(uint16(1), 0, 0))
	f.Fuzz(func(t *testing.T, head, version byte, body []byte) {
		var d Decoder
		id, code, err := d.Ack(head, body, version)
		if refused(t, err) {
			return
		}
		again, body := split(t, Dialect{Version: version}.AppendAck(nil, head>>4, id, code, ""))
		id2, code2, err := d.Ack(again, body, version)
		if err != nil || again != head || id2 != id || code2 != code {
			t.Fatalf("0x%02x %d 0x%02x came back as 0x%02x %d 0x%02x: %v", head, id, code, again, id2, code2, err)
		}
	})
}

func FuzzSubscribe(f *testing.F) {
	f.Add(byte(4), join(uint16(1), "a/#", 1, "b", 0))
	f.Add(byte(5), join(uint16(1), block(packets.PropSubscriptionIdentifier, 5, packets.PropUser, "a", "b"), "a/+", 0x2e, "$share/g/b", 1))
	f.Add(byte(5), join(uint16(1), block(), "a"))
	f.Add(byte(5), join(uint16(1), 0x7f))
	f.Fuzz(func(t *testing.T, version byte, body []byte) {
		var d, d2 Decoder
		p, err := d.Subscribe(body, version)
		if refused(t, err) {
			return
		}
		rewritten := join(p.ID)
		if version >= 5 {
			rewritten = append(rewritten, block(has(p.Identifier > 0, packets.PropSubscriptionIdentifier, appendVarint(nil, int(p.Identifier))))...)
		}
		for _, s := range p.Subs {
			rewritten = append(rewritten, join(s.Filter, s.QoS|one(s.NoLocal)<<2|one(s.RetainAsPublished)<<3|s.RetainHandling<<4)...)
		}
		again, err := d2.Subscribe(rewritten, version)
		same(t, p, again, err)
	})
}

func FuzzUnsubscribe(f *testing.F) {
	f.Add(byte(4), join(uint16(1), "a/#", "b"))
	f.Add(byte(5), join(uint16(1), block(packets.PropUser, "a", "b"), "a/+"))
	f.Add(byte(5), join(uint16(1), 0x7f, "a"))
	f.Fuzz(func(t *testing.T, version byte, body []byte) {
		var d, d2 Decoder
		p, err := d.Unsubscribe(body, version)
		if refused(t, err) {
			return
		}
		rewritten := join(p.ID)
		if version >= 5 {
			rewritten = append(rewritten, block()...)
		}
		for _, filter := range p.Filters {
			rewritten = append(rewritten, join(filter)...)
		}
		again, err := d2.Unsubscribe(rewritten, version)
		same(t, p, again, err)
	})
}

func FuzzDisconnect(f *testing.F) {
	f.Add(byte(4), []byte{})
	f.Add(byte(5), []byte{4})
	f.Add(byte(5), join(0, block(packets.PropSessionExpiryInterval, uint32(9), packets.PropReasonString, "r")))
	f.Add(byte(5), join(0, 0x7f))
	f.Fuzz(func(t *testing.T, version byte, body []byte) {
		var d, d2 Decoder
		p, err := d.Disconnect(body, version)
		if refused(t, err) {
			return
		}
		var rewritten []byte
		if version >= 5 {
			rewritten = join(p.Code, block(has(p.HasExpiry, packets.PropSessionExpiryInterval, p.SessionExpiry)))
		}
		again, err := d2.Disconnect(rewritten, version)
		same(t, p, again, err)
	})
}
