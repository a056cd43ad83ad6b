package sim

import (
	"bytes"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"pgregory.net/rapid"
)

func TestEveryPublishDecodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		topic := rapid.StringMatching(`[a-z0-9/._:-]{1,200}`).Draw(t, "topic")
		payload := rapid.SliceOfN(rapid.Byte(), 0, 20000).Draw(t, "payload")
		qos := rapid.SampledFrom([]byte{0, 1}).Draw(t, "qos")
		id := rapid.Uint16Min(1).Draw(t, "id")

		r := bytes.NewBuffer(appendPublish(nil, qos, appendString(nil, topic), id, payload))
		first, err := r.ReadByte()
		if err != nil {
			t.Fatal(err)
		}
		pk := packets.Packet{ProtocolVersion: 4}
		if err := pk.FixedHeader.Decode(first); err != nil {
			t.Fatal(err)
		}
		if pk.FixedHeader.Remaining, _, err = packets.DecodeLength(r); err != nil || pk.FixedHeader.Remaining != r.Len() {
			t.Fatalf("%v, length %d of %d", err, pk.FixedHeader.Remaining, r.Len())
		}
		if err := pk.PublishDecode(r.Bytes()); err != nil {
			t.Fatal(err)
		}
		if pk.TopicName != topic || !bytes.Equal(pk.Payload, payload) || pk.FixedHeader.Qos != qos || qos == 1 && pk.PacketID != id {
			t.Fatalf("decoded to %+v", pk)
		}
	})
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte{0x40, 2, 0, 1, 0xd0, 0, 0x20, 2, 0, 0})
	f.Add([]byte{0x40})
	f.Add([]byte{0x30, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		rest := in
		for {
			a, after, ok, err := nextAnswer(rest)
			if err != nil || !ok {
				if len(after) != len(rest) {
					t.Fatal("bytes were lost with a part of a packet")
				}
				return
			}
			if len(rest)-len(after) != 2+len(a.body) {
				t.Fatalf("%d bytes taken for a body of %d", len(rest)-len(after), len(a.body))
			}
			_ = connackError(a)
			rest = after
		}
	})
}
