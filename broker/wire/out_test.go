package wire

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mochi-mqtt/server/v2/packets"
	"pgregory.net/rapid"
)

// forwarded draws properties as a PublishPacket has them, and the content type
// among them.
func forwarded(t *rapid.T) (props []byte, contentType string) {
	text := rapid.StringN(0, 20, 40).Filter(func(s string) bool { return !strings.Contains(s, "\x00") })
	topic := rapid.StringMatching(`[a-z/$]{1,12}`)
	for _, id := range rapid.Permutation([]byte{1, 3, 8, 9, packets.PropUser, packets.PropUser}).Draw(t, "order")[:rapid.IntRange(0, 6).Draw(t, "properties")] {
		props = append(props, id)
		switch id {
		case packets.PropPayloadFormat:
			props = append(props, byte(rapid.IntRange(0, 1).Draw(t, "format")))
		case packets.PropContentType:
			contentType = text.Draw(t, "content type")
			props = appendText(props, contentType)
		case packets.PropResponseTopic:
			props = appendText(props, topic.Draw(t, "response topic"))
		case packets.PropCorrelationData:
			props = appendText(props, string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "correlation")))
		default:
			props = appendText(appendText(props, text.Draw(t, "name")), text.Draw(t, "value"))
		}
	}
	return props, contentType
}

// TestAppendPublishIsWhatPublishSizeSaysAndDecodesToItself is a property over
// dialects and messages.
func TestAppendPublishIsWhatPublishSizeSaysAndDecodesToItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Dialect{Version: rapid.SampledFrom([]byte{3, 4, 5}).Draw(t, "version")}
		o := &Out{
			Topic:     rapid.StringMatching(`[a-zäß/$😀]{1,40}`).Draw(t, "topic"),
			QoS:       rapid.SampledFrom([]byte{0, 1, 2}).Draw(t, "qos"),
			Retain:    rapid.Bool().Draw(t, "retain"),
			Dup:       rapid.Bool().Draw(t, "dup"),
			ID:        rapid.Uint16Range(1, math.MaxUint16).Draw(t, "id"),
			Alias:     rapid.SampledFrom([]uint16{0, 1, 65535}).Draw(t, "alias"),
			HasExpiry: rapid.Bool().Draw(t, "has expiry"),
			Expiry:    rapid.Uint32().Draw(t, "expiry"),
			Payload:   rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload"),
		}
		var contentType string
		o.Props, contentType = forwarded(t)
		before := rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "before")
		b := d.AppendPublish(bytes.Clone(before), o)
		if !bytes.HasPrefix(b, before) {
			t.Fatal("what stood there is changed")
		}
		b = b[len(before):]
		if len(b) != d.PublishSize(o) {
			t.Fatalf("%d bytes, PublishSize says %d", len(b), d.PublishSize(o))
		}
		head, body, n, _, err := Split(b, len(b))
		if err != nil || n != len(b) {
			t.Fatalf("split after %d of %d: %v", n, len(b), err)
		}
		var dec Decoder
		got, err := dec.Publish(head, body, d.Version)
		if err != nil {
			t.Fatal(err)
		}
		want := &PublishPacket{Topic: o.Topic, QoS: o.QoS, Retain: o.Retain, Payload: o.Payload}
		if o.QoS > 0 {
			want.ID, want.Dup = o.ID, o.Dup
		}
		if d.Version == 5 {
			want.HasAlias, want.Alias, want.HasExpiry, want.ContentType, want.Props = o.Alias > 0, o.Alias, o.HasExpiry, contentType, o.Props
			if o.HasExpiry {
				want.Expiry = o.Expiry
			}
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestSubscriptionIdentifiersAreReadByTheCodec(t *testing.T) { // MQTT-3.3.4-3, 3.3.4-4
	o := &Out{Topic: "t", QoS: 1, ID: 7, Alias: 2, HasExpiry: true, Expiry: 5, Identifiers: []uint32{1, 128, 16384, 268435455}, Payload: []byte("p")}
	b := Dialect{Version: 5}.AppendPublish(nil, o)
	if len(b) != (Dialect{Version: 5}).PublishSize(o) {
		t.Errorf("%d bytes, PublishSize says %d", len(b), Dialect{Version: 5}.PublishSize(o))
	}
	pk := codec(t, 5, b)
	want := packets.Properties{SubscriptionIdentifier: []int{1, 128, 16384, 268435455}, TopicAlias: 2, TopicAliasFlag: true, MessageExpiryInterval: 5}
	if diff := cmp.Diff(want, pk.Properties); diff != "" || pk.PacketID != 7 || string(pk.Payload) != "p" {
		t.Error(diff)
	}
	if b = (Dialect{Version: 4}).AppendPublish(nil, o); !bytes.Equal(b, []byte{0x32, 6, 0, 1, 't', 0, 7, 'p'}) {
		t.Errorf("3.1.1 has properties: % x", b)
	}
}

func TestAPublishThatCannotBeWrittenIsNotWritten(t *testing.T) {
	huge := make([]byte, maxRemaining)
	for name, o := range map[string]*Out{
		"a topic over 65,535 bytes":       {Topic: strings.Repeat("t", 65536)},
		"a packet over 268,435,455 bytes": {Topic: "t", Payload: huge},
	} {
		for _, version := range []byte{4, 5} {
			d := Dialect{Version: version}
			if b := d.AppendPublish(nil, o); b != nil || d.PublishSize(o) != 0 {
				t.Errorf("%s, version %d: %d bytes, PublishSize says %d", name, version, len(b), d.PublishSize(o))
			}
		}
	}
	if d := (Dialect{Version: 4}); d.PublishSize(&Out{Topic: strings.Repeat("t", 65535)}) != 1+3+2+65535 {
		t.Error("a topic of 65,535 bytes is refused")
	}
}
