package wire

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mochi-mqtt/server/v2/packets"
)

// What the codec's own encoder writes is what the Decoder reads.

func TestConnectReadsWhatTheCodecWrites(t *testing.T) {
	pk := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: Connect},
		ProtocolVersion: 5,
		Mods:            packets.Mods{AllowResponseInfo: true},
		Connect: packets.ConnectParams{
			ProtocolName: []byte("MQTT"), Clean: true, Keepalive: 43691, ClientIdentifier: "dév-1",
			UsernameFlag: true, Username: []byte("token"), PasswordFlag: true, Password: []byte{0, 255},
			WillFlag: true, WillTopic: "devices/me/events/gone", WillPayload: []byte("bye"), WillQos: 1, WillRetain: true,
			WillProperties: packets.Properties{
				WillDelayInterval: 30, MessageExpiryInterval: 60, ContentType: "text/plain", ResponseTopic: "r",
				CorrelationData: []byte("c"), User: []packets.UserProperty{{Key: "a", Val: "b"}},
			},
		},
		Properties: packets.Properties{
			SessionExpiryInterval: 3600, SessionExpiryIntervalFlag: true, ReceiveMaximum: 20, MaximumPacketSize: 1 << 20,
			TopicAliasMaximum: 5, RequestProblemInfoFlag: true, RequestResponseInfo: 1,
			AuthenticationMethod: "SCRAM", AuthenticationData: []byte("x"),
		},
	}
	var d Decoder
	_, body := split(t, encoded(t, pk.ConnectEncode))
	got, err := d.Connect(body)
	wantCode(t, err, CodeSuccess)
	want := &ConnectPacket{
		Version: 5, ClientID: "dév-1", CleanStart: true, KeepAlive: 43691, Username: "token", HasUsername: true,
		Password: []byte{0, 255}, HasPassword: true,
		Will: &Will{
			Topic: "devices/me/events/gone", Payload: []byte("bye"), QoS: 1, Retain: true, Delay: 30, HasExpiry: true, Expiry: 60,
			ContentType: "text/plain",
			Props: join(packets.PropContentType, "text/plain", packets.PropResponseTopic, "r", packets.PropCorrelationData, "c",
				packets.PropUser, "a", "b"),
		},
		SessionExpiry: 3600, ReceiveMaximum: 20, MaximumPacket: 1 << 20, AliasMaximum: 5, ResponseInfo: true, AuthMethod: "SCRAM",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestConnectHasTheDefaultsOfTheSpecification(t *testing.T) {
	var d Decoder
	full := connectBody(5, 2, block(packets.PropReceiveMaximum, uint16(1), packets.PropRequestProblemInfo, 0), "one")
	if _, err := d.Connect(full); err != nil {
		t.Fatal(err)
	}
	for version, body := range map[byte][]byte{
		3: connectBody(3, 0, "c"), 4: connectBody(4, 0, "c"), 5: connectBody(5, 0, block(), "c"),
	} {
		got, err := d.Connect(body) // the same Decoder: nothing of the packet before stays
		wantCode(t, err, CodeSuccess)
		want := &ConnectPacket{Version: version, ClientID: "c", KeepAlive: 60, ReceiveMaximum: 65535, ProblemInfo: true}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestPublishReadsWhatTheCodecWrites(t *testing.T) {
	for _, version := range []byte{4, 5} {
		pk := packets.Packet{
			FixedHeader:     packets.FixedHeader{Type: Publish, Qos: 2, Dup: true, Retain: true},
			ProtocolVersion: version, PacketID: 513, TopicName: "a/b", Payload: []byte("payload"),
			Mods: packets.Mods{AllowResponseInfo: true},
			Properties: packets.Properties{
				PayloadFormat: 1, PayloadFormatFlag: true, MessageExpiryInterval: 9, ContentType: "application/json",
				ResponseTopic: "r", CorrelationData: []byte{1, 2}, TopicAlias: 4, TopicAliasFlag: true,
				User: []packets.UserProperty{{Key: "k", Val: "v"}},
			},
		}
		want := &PublishPacket{Topic: "a/b", ID: 513, QoS: 2, Dup: true, Retain: true, Payload: []byte("payload")}
		if version == 5 {
			want.HasAlias, want.Alias, want.HasExpiry, want.Expiry, want.ContentType = true, 4, true, 9, "application/json"
			want.Props = join(packets.PropPayloadFormat, 1, packets.PropContentType, "application/json",
				packets.PropResponseTopic, "r", packets.PropCorrelationData, "\x01\x02", packets.PropUser, "k", "v")
		}
		head, body := split(t, encoded(t, pk.PublishEncode))
		var d Decoder
		got, err := d.Publish(head, body, version)
		wantCode(t, err, CodeSuccess)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("version %d: %s", version, diff)
		}
	}
}

func TestPublishForwardsThePropertiesInTheirOrder(t *testing.T) { // MQTT-3.3.2-18
	topicAlias := join(packets.PropTopicAlias, uint16(3))
	expiry := join(packets.PropMessageExpiryInterval, uint32(60))
	one, two := join(packets.PropUser, "z", "1"), join(packets.PropUser, "a", "2", packets.PropContentType, "t")
	tests := []struct {
		name  string
		props []byte
		want  []byte
		copy  bool
	}{
		{"none", nil, nil, false},
		{"only what is not forwarded", join(topicAlias, expiry), nil, false},
		{"only an expiry", expiry, nil, false},
		{"nothing to cut", join(two, one), join(two, one), false},
		{"alias in front", join(topicAlias, two), two, false},
		{"expiry at the end", join(two, expiry), two, false},
		{"both in front", join(expiry, topicAlias, one), one, false},
		{"both around", join(expiry, one, topicAlias), one, false},
		{"both at the end", join(one, topicAlias, expiry), one, false},
		{"expiry in the middle", join(one, expiry, two), join(one, two), true},
		{"everywhere", join(one, topicAlias, two, expiry, one), join(one, two, one), true},
	}
	var d Decoder
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body := join("t", block(tt.props), raw("payload"))
			p, err := d.Publish(0x30, body, 5)
			wantCode(t, err, CodeSuccess)
			if !bytes.Equal(p.Props, tt.want) || string(p.Payload) != "payload" {
				t.Fatalf("properties % x, payload %q; want % x", p.Props, p.Payload, tt.want)
			}
			if cap(p.Props) > len(p.Props) && !tt.copy {
				if p.Props = append(p.Props, 'X'); !bytes.HasSuffix(body, raw("payload")) {
					t.Error("appending to the properties overwrites the payload")
				}
			}
			if len(tt.want) > 0 {
				clear(body)
				if copied := bytes.Equal(p.Props[:len(tt.want)], tt.want); copied != tt.copy {
					t.Errorf("copied is %v", copied)
				}
			}
		})
	}
}

func TestSubscribeReadsWhatTheCodecWrites(t *testing.T) {
	for _, version := range []byte{4, 5} {
		pk := packets.Packet{
			FixedHeader: packets.FixedHeader{Type: Subscribe, Qos: 1}, ProtocolVersion: version, PacketID: 77,
			Filters: packets.Subscriptions{
				{Filter: "a/+", Qos: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2},
				{Filter: "$share/g/b/#", Qos: 1},
			},
			Properties: packets.Properties{SubscriptionIdentifier: []int{268435455}},
		}
		want := &SubscribePacket{ID: 77, Subs: []Sub{{Filter: "a/+", QoS: 2}, {Filter: "$share/g/b/#", QoS: 1}}}
		if version == 5 {
			want.Identifier = 268435455
			want.Subs[0] = Sub{Filter: "a/+", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}
		}
		_, body := split(t, encoded(t, pk.SubscribeEncode))
		var d Decoder
		for range 2 { // the second time with the scratch of the first
			got, err := d.Subscribe(body, version)
			wantCode(t, err, CodeSuccess)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("version %d: %s", version, diff)
			}
		}
	}
}

func TestUnsubscribeReadsWhatTheCodecWrites(t *testing.T) {
	for _, version := range []byte{4, 5} {
		pk := packets.Packet{
			FixedHeader: packets.FixedHeader{Type: Unsubscribe, Qos: 1}, ProtocolVersion: version, PacketID: 78,
			Filters: packets.Subscriptions{{Filter: "a/+"}, {Filter: "b"}},
		}
		_, body := split(t, encoded(t, pk.UnsubscribeEncode))
		var d Decoder
		got, err := d.Unsubscribe(body, version)
		wantCode(t, err, CodeSuccess)
		if diff := cmp.Diff(&UnsubscribePacket{ID: 78, Filters: []string{"a/+", "b"}}, got); diff != "" {
			t.Errorf("version %d: %s", version, diff)
		}
	}
}

func TestDisconnectReadsItsForms(t *testing.T) {
	tests := []struct {
		name    string
		version byte
		body    []byte
		want    DisconnectPacket
	}{
		{"3.1.1", 4, nil, DisconnectPacket{}},
		{"MQTT 5 without a code", 5, nil, DisconnectPacket{}},
		{"a code alone, which the codec overlooks", 5, []byte{4}, DisconnectPacket{Code: CodeDisconnectWithWill}},
		{"a code and no properties", 5, []byte{4, 0}, DisconnectPacket{Code: CodeDisconnectWithWill}},
		{"a session expiry of 0", 5, join(0, block(packets.PropSessionExpiryInterval, uint32(0))), DisconnectPacket{HasExpiry: true}},
		{
			"a session expiry and a reason", 5,
			join(4, block(packets.PropReasonString, "r", packets.PropSessionExpiryInterval, uint32(70000))),
			DisconnectPacket{Code: 4, HasExpiry: true, SessionExpiry: 70000},
		},
	}
	var d Decoder
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := d.Disconnect(tt.body, tt.version)
			wantCode(t, err, CodeSuccess)
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestResetLetsGoOfTheLastBody(t *testing.T) {
	var d Decoder
	decode := func(n int) {
		if _, err := d.Subscribe(append(join(uint16(1)), bytes.Repeat(join("a", 0), n)...), 4); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Unsubscribe(append(join(uint16(1)), bytes.Repeat(join("a"), n)...), 4); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Publish(0x30, join("t", block(packets.PropUser, strings.Repeat("u", 8*n), "", packets.PropTopicAlias, uint16(1), packets.PropUser, "", "")), 5); err != nil {
			t.Fatal(err)
		}
		d.Reset()
	}
	decode(3)
	if cap(d.subscribe.Subs) == 0 || cap(d.unsubscribe.Filters) == 0 || cap(d.props.kept) == 0 {
		t.Error("small scratch is thrown away")
	}
	for _, s := range d.subscribe.Subs[:cap(d.subscribe.Subs)] {
		if s.Filter != "" {
			t.Error("a filter is kept")
		}
	}
	decode(1000)
	if cap(d.subscribe.Subs) > 128 || cap(d.unsubscribe.Filters) > 128 || cap(d.props.kept) > maxKept {
		t.Error("large scratch is kept")
	}
	d.subscribe.Subs, d.unsubscribe.Filters, d.props.kept = nil, nil, nil
	if diff := cmp.Diff(&Decoder{}, &d, cmp.AllowUnexported(Decoder{}, properties{}, slot{})); diff != "" {
		t.Error(diff)
	}
}

// TestDecodersAllocateLittleForAnyBody gives each decoder the bodies that cost it
// most, just within the limits and far beyond them, and counts bytes.
func TestDecodersAllocateLittleForAnyBody(t *testing.T) {
	t.Run("within the limits", func(t *testing.T) { checkAllocated(t, 1024, CodeSuccess) })
	t.Run("beyond the limits", func(t *testing.T) { checkAllocated(t, 50_000, CodeQuota) })
}

func checkAllocated(t *testing.T, n int, code byte) {
	users := bytes.Repeat(join(packets.PropUser, "", ""), n)
	tests := map[string]struct {
		body   []byte
		decode func(*Decoder, []byte, byte) error
	}{
		"CONNECT of user properties":    {connectBody(5, 2, block(users), "c"), decodeConnect},
		"PUBLISH of user properties":    {join("t", block(users)), func(d *Decoder, b []byte, v byte) error { _, err := d.Publish(0x30, b, v); return err }},
		"PUBACK of user properties":     {join(uint16(1), 0, block(users)), func(d *Decoder, b []byte, v byte) error { _, _, err := d.Ack(0x40, b, v); return err }},
		"SUBSCRIBE of short filters":    {append(join(uint16(1), block()), bytes.Repeat(join("a", 0), n)...), decodeSubscribe},
		"SUBSCRIBE of user properties":  {join(uint16(1), block(users), "a", 0), decodeSubscribe},
		"UNSUBSCRIBE of short filters":  {append(join(uint16(1), block()), bytes.Repeat(join("a"), n)...), decodeUnsubscribe},
		"DISCONNECT of user properties": {join(0, block(users)), decodeDisconnect},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			var d Decoder
			runtime.ReadMemStats(&before)
			err := tt.decode(&d, tt.body, 5)
			runtime.ReadMemStats(&after)
			wantCode(t, err, code)
			got := after.TotalAlloc - before.TotalAlloc
			t.Logf("%d bytes allocated for a body of %d", got, len(tt.body))
			if got > 512<<10 {
				t.Errorf("%d bytes allocated for a body of %d", got, len(tt.body))
			}
		})
	}
}
