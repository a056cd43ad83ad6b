package server

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/broker"
	"muster/broker/thingsboard"
	"muster/devices/intake"
	"muster/firmware/blob"
	"muster/firmware/chunk"
	"muster/firmware/talk"
)

// offerUse is of the data directory's key.
const offerUse = "firmware offers"

// chunkRate is how much of images a node sends over MQTT, in bytes a second. Telemetry comes
// first: what is left of a gigabit is much more, and a core sends this in a small part of its
// time.
const chunkRate = 32 << 20

// updates is firmware over MQTT: what devices ask and report, and what they are told.
type updates struct {
	talk *talk.Talk
	pump *chunk.Pump
}

// buildUpdates makes it over the desk and the images.
func (s *Server) buildUpdates() (err error) {
	u := &s.updates
	if u.pump, err = chunk.New(chunk.Config{Images: imagesOf{s}, Budgets: s.budgets, Rate: chunkRate, Now: s.cfg.Now, Metrics: s.metrics}); err != nil {
		return fmt.Errorf("build what sends images: %w", err)
	}
	u.talk, err = talk.New(talk.Config{
		Desk: s.rollouts.desk, Line: firmwareLine{s}, Pieces: u.pump, Key: ed25519.NewKeyFromSeed(s.offerKey),
		URL: s.imageURL, Runs: s.rollouts.fleet.Runs, Behind: children{registry: s.registry}.Behind,
		Now: s.cfg.Now, Logger: s.cfg.Logger, Metrics: s.metrics,
	})
	if err != nil {
		return fmt.Errorf("build what devices are told of firmware: %w", err)
	}
	return nil
}

// imageURL is where a device fetches an image. Without a public URL it is a path: the server
// does not know by which name the device reaches it.
func (s *Server) imageURL(device muster.DeviceID, action int32, digest string, until time.Time) string {
	var sum [sha256.Size]byte
	if n, err := hex.Decode(sum[:], []byte(digest)); err != nil || n != len(sum) {
		return ""
	}
	return s.links.URL(s.cfg.PublicURL, sum, device, int64(action), until)
}

// start starts the loops.
func (u *updates) start(s *Server) {
	s.loops.Go("firmware-offers", u.talk.Run)
	s.loops.Go("firmware-heard", u.talk.RunHeard)
	s.loops.Go("firmware-pieces", u.pump.Run)
}

func (u *updates) ready(device muster.DeviceID, children bool) { u.talk.Ready(device, children) }

// imagesOf are the images and patches on disk. It is a chunk.Images.
type imagesOf struct{ server *Server }

// Open implements chunk.Images.
func (i imagesOf) Open(sha256 string) (chunk.Image, error) {
	f, err := i.server.imageFile(sha256, 0) // the pieces of all devices leave one after the other
	if err != nil {
		return nil, err
	}
	steady, err := blob.Steadily(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return steady, nil
}

// firmwareLine carries messages to devices over MQTT. It is a talk.Line.
type firmwareLine struct{ server *Server }

// Send implements talk.Line.
func (l firmwareLine) Send(device muster.DeviceID, rest string, payload []byte) bool {
	return l.server.broker.Send(broker.Delivery{
		Device: device, Topic: "devices/" + string(device) + "/" + rest, Payload: payload, ContentType: "application/json",
	})
}

// firmwareOwner keeps what devices report of firmware. It is an intake.Owner.
type firmwareOwner struct{ server *Server }

// Take implements intake.Owner.
func (o firmwareOwner) Take(ctx context.Context, ms []intake.Message) []error {
	list := make([]talk.Said, len(ms))
	for i := range ms {
		list[i] = talk.Said{Device: ms[i].Device, Ack: ms[i].Tail != "status", Payload: ms[i].Payload}
	}
	errs := o.server.updates.talk.Take(ctx, list)
	for i, err := range errs {
		switch kind := muster.KindOf(err); {
		case err == nil:
		case talk.OverRate(err):
			errs[i] = broker.Exceeded(intake.Refused("rate", muster.Public(err)))
		case slices.Contains([]muster.Kind{muster.Invalid, muster.TooLarge, muster.NotFound, muster.Stale, muster.Conflict, muster.Forbidden}, kind):
			errs[i] = intake.Refused(kind.String(), muster.Public(err))
		}
	}
	return errs
}

// get has a request for pieces answered to the connection it came by. It is acknowledged at
// once: a request that is lost is made again.
func (s sink) get(ctx context.Context, m broker.Message) {
	if m.Client != nil { // a last will has nobody to answer
		s.firmware.talk.Get(ctx, m.Device, m.Payload, pieces{m.Client, m.Device, m.Correlation})
	}
	if m.From != nil {
		m.From.Acked(m.Token, nil)
	}
}

// pieces is a connection that asked for pieces. It is a talk.Peer.
type pieces struct {
	to          broker.Remote
	device      muster.DeviceID
	correlation string
}

// Data implements talk.Peer.
func (p pieces) Data(off int64, of string, data []byte) chunk.Given {
	a := broker.Answer{
		Topic: "devices/" + string(p.device) + "/firmware/data/" + strconv.FormatInt(off, 10), Payload: data,
		Correlation: p.correlation, User: [][2]string{{"sha256", of}},
	}
	switch p.to.Answer(a) {
	case broker.AnswerSent:
		return chunk.Taken
	case broker.AnswerLater:
		return chunk.Later
	case broker.AnswerTooLarge:
		p.Error(fmt.Appendf(nil, `{"off":%d,"code":"too_large","detail":"the client takes no packets of %d bytes"}`, off, len(data)))
		return chunk.Gone
	default:
		return chunk.Gone
	}
}

// Error implements talk.Peer.
func (p pieces) Error(payload []byte) {
	p.to.Answer(broker.Answer{Topic: "devices/" + string(p.device) + "/firmware/error", Payload: payload, Correlation: p.correlation})
}

// part has a ThingsBoard device's request for a part of an image answered.
func (u *updates) part(ctx context.Context, m broker.Message) {
	q := talk.Part{Request: m.Ask.ID, Software: m.Ask.Software, Chunk: m.Ask.Part, Size: m.Ask.Size}
	u.talk.Part(ctx, m.Ask.Device, q, parts{m.Client, m.Ask.PartTopic(), m.Ask.ErrorTopic()})
}

// parts is a connection that asked for a part. It is a talk.PartPeer.
type parts struct {
	to        broker.Remote
	topic, no string
}

// Part implements talk.PartPeer.
func (p parts) Part(data []byte) chunk.Given {
	switch p.to.Answer(broker.Answer{Topic: p.topic, Payload: data}) {
	case broker.AnswerSent:
		return chunk.Taken
	case broker.AnswerLater:
		return chunk.Later
	case broker.AnswerTooLarge:
		p.Refused("PAYLOAD_TOO_LARGE")
		return chunk.Gone
	default:
		return chunk.Gone
	}
}

// Refused implements talk.PartPeer.
func (p parts) Refused(code string) {
	p.to.Answer(broker.Answer{Topic: p.no, Payload: []byte(code)})
}

// shared adds to a desired document, for the answer to a ThingsBoard device, what it is
// offered: the attributes fw_title, fw_version and so on, which nobody else may set then.
func (u *updates) shared(ctx context.Context, ask *thingsboard.Request, desired []byte) ([]byte, error) {
	image := func(key string) bool { return strings.HasPrefix(key, "fw_") || strings.HasPrefix(key, "sw_") }
	if !ask.AllShared && !slices.ContainsFunc(ask.Shared, image) {
		return desired, nil
	}
	offered, err := u.talk.Attributes(ctx, ask.Device)
	if err != nil || len(offered) == 0 {
		return desired, err //nolint:wrapcheck // it says what it was doing
	}
	all := map[string]json.RawMessage{}
	if len(desired) > 0 {
		if err := json.Unmarshal(desired, &all); err != nil {
			return nil, muster.Errorf(muster.Internal, "read a desired document: %w", err)
		}
	}
	maps.Copy(all, offered)
	out, err := json.Marshal(all)
	if err != nil {
		return nil, muster.Errorf(muster.Internal, "encode attributes: %w", err)
	}
	return out, nil
}

// The seams that are filled here.
var (
	_ talk.Line     = firmwareLine{}
	_ talk.Peer     = pieces{}
	_ talk.PartPeer = parts{}
	_ chunk.Images  = imagesOf{}
	_ intake.Owner  = firmwareOwner{}
)
