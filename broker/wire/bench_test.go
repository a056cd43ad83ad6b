package wire

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

const benchTopic, benchPayload = "devices/sensor-0042/telemetry", `{"temperature":21.5,"humidity":47.2,"battery":3.61,"rssi":-67}`

// hot are the steps that every message goes through.
func hot() map[string]func() {
	var d Decoder
	plain := Dialect{Version: 4}.AppendPublish(nil, &Out{Topic: benchTopic, QoS: 1, ID: 7, Payload: raw(benchPayload)})
	five := Dialect{Version: 5}.AppendPublish(nil, &Out{Topic: benchTopic, QoS: 1, ID: 7, Payload: raw(benchPayload)})
	rich := Dialect{Version: 5}.AppendPublish(nil, &Out{
		Topic: benchTopic, QoS: 1, ID: 7, Alias: 3, HasExpiry: true, Expiry: 60, Payload: raw(benchPayload),
		Props: join(packets.PropContentType, "application/json", packets.PropUser, "site", "north"),
	})
	middle := append([]byte{0x32}, block(benchTopic, uint16(7), block(packets.PropContentType, "application/json",
		packets.PropMessageExpiryInterval, uint32(60), packets.PropUser, "site", "north"), raw(benchPayload))...)
	publish := func(b []byte, version byte) func() {
		return func() {
			head, body, _, _, err := Split(b, 1<<18)
			if err != nil {
				panic(err)
			}
			if _, err = d.Publish(head, body, version); err != nil {
				panic(err)
			}
		}
	}
	out := make([]byte, 0, 512)
	o := &Out{Topic: benchTopic, QoS: 1, ID: 7, Payload: raw(benchPayload)}
	ack := []byte{0, 7}
	return map[string]func(){
		"Split": func() {
			if _, _, n, _, err := Split(plain, 1<<18); n == 0 || err != nil {
				panic(err)
			}
		},
		"SplitAndPublish/3.1.1":               publish(plain, 4),
		"SplitAndPublish/5":                   publish(five, 5),
		"SplitAndPublish/5 properties":        publish(rich, 5),
		"SplitAndPublish/5 expiry in between": publish(middle, 5),
		"Ack": func() {
			if _, _, err := d.Ack(0x40, ack, 5); err != nil {
				panic(err)
			}
		},
		"AppendPublish/3.1.1":     func() { out = Dialect{Version: 4}.AppendPublish(out[:0], o) },
		"AppendPublish/5":         func() { out = Dialect{Version: 5}.AppendPublish(out[:0], o) },
		"AppendAck/3.1.1":         func() { out = Dialect{Version: 4}.AppendAck(out[:0], Puback, 7, 0, "") },
		"AppendAck/5 with reason": func() { out = Dialect{Version: 5}.AppendAck(out[:0], Puback, 7, CodeQuota, "the log is full") },
	}
}

func TestHotStepsDoNotAllocate(t *testing.T) {
	for name, step := range hot() {
		t.Run(name, func(t *testing.T) {
			if n := testing.AllocsPerRun(100, step); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func BenchmarkHot(b *testing.B) {
	for name, step := range hot() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
}

func BenchmarkConnect(b *testing.B) {
	body := connectBody(5, 0xc2, block(packets.PropSessionExpiryInterval, uint32(3600)), "sensor-0042", "token", "")
	var d Decoder
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Connect(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSubscribe(b *testing.B) {
	body := join(uint16(1), block(), "devices/me/desired", 1, "devices/me/commands/+", 1, "devices/me/firmware/#", 1)
	var d Decoder
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Subscribe(body, 5); err != nil {
			b.Fatal(err)
		}
	}
}
