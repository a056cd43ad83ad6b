package api

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/devices/join"
	"muster/ingest"
)

// AdoptionKeeper keeps the keys that let clients into the inbox.
type AdoptionKeeper interface {
	AdoptionKeys() []join.AdoptionKey
	CreateAdoptionKey(ctx context.Context, name string, expires time.Time) (join.AdoptionKey, string, error)
	DeleteAdoptionKey(ctx context.Context, id string) error
}

// Inbox holds clients that ask to be adopted.
type Inbox interface {
	Inbox() []join.Candidate
	Candidate(id string) (join.Candidate, error)
	Adopt(ctx context.Context, candidate string, a join.Adoption) (devices.Device, devices.Issued, error)
	Refuse(ctx context.Context, candidate string) error
	Blocks() []join.Block
	Unblock(ctx context.Context, hash [32]byte) error
}

type adoptionKey struct {
	ID        string  `json:"id"`
	Name      string  `json:"name"`
	CreatedAt string  `json:"created_at" format:"date-time"`
	ExpiresAt *string `json:"expires_at" format:"date-time" doc:"Null for never"`
}

func adoptionKeyOf(k join.AdoptionKey) adoptionKey {
	return adoptionKey{ID: k.ID, Name: k.Name, CreatedAt: stamp(k.Created), ExpiresAt: stampOrNull(k.Expires)}
}

type newAdoptionKey struct {
	Name      string    `json:"name" minLength:"1" maxLength:"200"`
	ExpiresAt time.Time `json:"expires_at,omitzero" required:"false" doc:"Never when absent"`
}

type issuedAdoptionKey struct {
	AdoptionKey adoptionKey `json:"adoption_key"`
	Secret      string      `json:"secret" doc:"The MQTT password beside any user name, or the user name alone; shown this once"`
}

// candidate is a client that asks to be adopted, as it is shown.
type candidate struct {
	ID          string   `json:"id" doc:"The device id it would get"`
	ClientID    string   `json:"client_id"`
	Username    string   `json:"username,omitempty"`
	Peer        string   `json:"peer,omitempty"`
	Listener    string   `json:"listener"`
	AdoptionKey string   `json:"adoption_key" doc:"Name of the key that it presented"`
	FirstAt     string   `json:"first_at" format:"date-time"`
	LastAt      string   `json:"last_at" format:"date-time" doc:"When it came in or sent something"`
	Messages    int64    `json:"messages" doc:"That it has sent"`
	Samples     []sample `json:"samples,omitempty" nullable:"false" doc:"The last of them, newest first; absent in lists"`
}

// sample is a message of a candidate, with what would become of it.
type sample struct {
	At       string          `json:"at" format:"date-time"`
	Topic    string          `json:"topic"`
	Size     int             `json:"size" doc:"Bytes of the payload"`
	Text     *string         `json:"text,omitempty" doc:"The payload's first 4 KiB, when they are text"`
	Hex      string          `json:"hex,omitempty" doc:"The payload's first 4 KiB, when they are not"`
	JSON     json.RawMessage `json:"json,omitempty" doc:"The payload, when it is JSON that would not be taken as telemetry"`
	Decoded  []decoded       `json:"decoded" nullable:"false" doc:"The messages that it would be as telemetry"`
	Rejected []string        `json:"rejected" nullable:"false" doc:"Why what of it would be rejected"`
}

type decoded struct {
	At     *string         `json:"at,omitempty" format:"date-time" doc:"The time that the message names"`
	Values json.RawMessage `json:"values"`
}

func candidateOf(c join.Candidate, now muster.Micros) candidate {
	out := candidate{
		ID: c.ID, ClientID: c.ClientID, Username: c.Username, Peer: c.Peer, Listener: c.Listener, AdoptionKey: c.KeyName,
		FirstAt: stamp(c.First), LastAt: stamp(c.Last), Messages: c.Messages,
	}
	for i := len(c.Samples) - 1; i >= 0; i-- {
		out.Samples = append(out.Samples, sampleOf(&c.Samples[i], now))
	}
	return out
}

func sampleOf(s *join.Sample, now muster.Micros) sample {
	out := sample{At: stamp(s.At), Topic: s.Topic, Size: s.Size, Decoded: []decoded{}, Rejected: []string{}}
	if utf8.Valid(s.Payload) {
		text := string(s.Payload)
		out.Text = &text
	} else {
		out.Hex = hex.EncodeToString(s.Payload)
	}
	if s.Size > len(s.Payload) {
		out.Rejected = append(out.Rejected, "only the first "+strconv.Itoa(len(s.Payload))+" bytes were kept to look at")
		return out
	}
	messages, rejected := ingest.Preview(s.Topic, s.Payload, now)
	for _, m := range messages {
		out.Decoded = append(out.Decoded, decoded{stampOrNull(m.Time), m.Values})
	}
	out.Rejected = append(out.Rejected, rejected...)
	if len(messages) == 0 && json.Valid(s.Payload) {
		out.JSON = s.Payload
	}
	return out
}

// CandidatePath is the part of an input that names a candidate.
type CandidatePath struct {
	Candidate string `path:"candidate" maxLength:"128"`
}

func (a *API) inboxRoutes() {
	a.adoptionKeyRoutes()
	a.candidateRoutes()
	a.blockRoutes()
}

func (a *API) adoptionKeyRoutes() {
	route(a, accounts.Admin, huma.Operation{
		OperationID: "list-adoption-keys", Method: http.MethodGet, Path: "/adoption-keys", Tags: []string{"joining"}, Summary: "List adoption keys",
	}, func(context.Context, *struct{}) (*body[page[adoptionKey]], error) {
		keys := a.Joining.AdoptionKeys()
		items := make([]adoptionKey, len(keys))
		for i, k := range keys {
			items[i] = adoptionKeyOf(k)
		}
		return lone(items), nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "create-adoption-key", Method: http.MethodPost, Path: "/adoption-keys", DefaultStatus: http.StatusCreated,
		Tags: []string{"joining"}, Summary: "Make a key that lets unknown clients into the adoption inbox", Errors: []int{409},
	}, func(ctx context.Context, in *body[newAdoptionKey]) (*created[issuedAdoptionKey], error) {
		k, secret, err := a.Joining.CreateAdoptionKey(ctx, in.Body.Name, in.Body.ExpiresAt)
		if err != nil {
			return nil, err
		}
		return &created[issuedAdoptionKey]{prefix + "/adoption-keys/" + k.ID, issuedAdoptionKey{adoptionKeyOf(k), secret}}, nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "delete-adoption-key", Method: http.MethodDelete, Path: "/adoption-keys/{key}", Tags: []string{"joining"},
		Summary: "Revoke an adoption key; devices that were adopted stay", Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		Key string `path:"key" maxLength:"64"`
	},
	) (*struct{}, error) {
		return nil, a.Joining.DeleteAdoptionKey(ctx, in.Key)
	})
}

func (a *API) candidateRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-candidates", Method: http.MethodGet, Path: "/inbox", Tags: []string{"joining"},
		Summary: "List the clients that ask to be adopted, the one last heard of first",
	}, func(ctx context.Context, _ *struct{}) (*body[page[candidate]], error) {
		found := a.Joining.Inbox()
		items := make([]candidate, 0, len(found))
		for _, c := range found {
			if a.seesNew(ctx, devices.Spec{ID: muster.DeviceID(c.ID)}) {
				items = append(items, candidateOf(c, 0))
			}
		}
		return lone(items), nil
	})
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-candidate", Method: http.MethodGet, Path: "/inbox/{candidate}", Tags: []string{"joining"},
		Summary: "Get a candidate, with its last messages and what would become of them", Errors: []int{404},
	}, func(ctx context.Context, in *CandidatePath) (*body[candidate], error) {
		c, err := a.candidate(ctx, in.Candidate)
		if err != nil {
			return nil, err
		}
		return &body[candidate]{candidateOf(c, muster.MicrosOf(a.Now()))}, nil
	})
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "adopt-candidate", Method: http.MethodPost, Path: "/inbox/{candidate}/adopt", DefaultStatus: http.StatusCreated,
		Tags: []string{"joining"}, Summary: "Make a device of a candidate",
		Description: "Its client comes back as that device; the token is to be used instead of the adoption key.", Errors: []int{404, 409},
	}, a.adopt)
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "refuse-candidate", Method: http.MethodDelete, Path: "/inbox/{candidate}", Tags: []string{"joining"},
		Summary: "Refuse a candidate: it is cut and kept out", Errors: []int{404, 409},
	}, func(ctx context.Context, in *CandidatePath) (*struct{}, error) {
		if _, err := a.candidate(ctx, in.Candidate); err != nil {
			return nil, err
		}
		return nil, a.Joining.Refuse(ctx, in.Candidate)
	})
}

// adoption is the optional body of an adoption.
type adoption struct {
	ID      string            `json:"id,omitempty" maxLength:"128" doc:"The candidate's when absent"`
	Name    string            `json:"name,omitempty" maxLength:"200"`
	Profile string            `json:"profile,omitempty" maxLength:"64" doc:"default when absent"`
	Tags    map[string]string `json:"tags,omitempty"`
}

// candidate returns a candidate that who asks may know of.
func (a *API) candidate(ctx context.Context, id string) (join.Candidate, error) {
	c, err := a.Joining.Candidate(id)
	if err == nil && !a.seesNew(ctx, devices.Spec{ID: muster.DeviceID(c.ID)}) {
		return a.Joining.Candidate("") // answered as any that is not there
	}
	return c, err
}

func (a *API) adopt(ctx context.Context, in *struct {
	CandidatePath
	Body *adoption
},
) (*created[createdDevice], error) {
	var b adoption
	if in.Body != nil {
		b = *in.Body
	}
	tags, err := devices.TagsOf(b.Tags)
	if err != nil {
		return nil, err
	}
	c, err := a.candidate(ctx, in.Candidate)
	if err != nil {
		return nil, err
	}
	spec := devices.Spec{ID: muster.DeviceID(cmp.Or(b.ID, c.ID)), Name: b.Name, Profile: b.Profile, Tags: tags, Credential: devices.Token}
	if !a.seesNew(ctx, spec) {
		return nil, muster.Errorf(muster.Forbidden, "the device would not be one that the key's selector selects")
	}
	d, is, err := a.Joining.Adopt(ctx, in.Candidate, join.Adoption{ID: muster.DeviceID(b.ID), Name: b.Name, Profile: b.Profile, Tags: tags})
	if err != nil {
		return nil, err
	}
	return &created[createdDevice]{prefix + "/devices/" + string(d.ID), createdDevice{a.one(d), issuedOf(is)}}, nil
}

// blockedClient is a client that was refused.
type blockedClient struct {
	ID        string `json:"id"`
	Candidate string `json:"candidate" doc:"The id it had in the inbox"`
	CreatedAt string `json:"created_at" format:"date-time"`
}

func (a *API) blockRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-blocked-clients", Method: http.MethodGet, Path: "/inbox-blocks", Tags: []string{"joining"},
		Summary: "List the clients that were refused, newest first",
	}, func(context.Context, *struct{}) (*body[page[blockedClient]], error) {
		found := a.Joining.Blocks()
		items := make([]blockedClient, len(found))
		for i, b := range found {
			items[i] = blockedClient{hex.EncodeToString(b.Hash[:]), b.Label, stamp(b.Created)}
		}
		return lone(items), nil
	})
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "unblock-client", Method: http.MethodDelete, Path: "/inbox-blocks/{block}", Tags: []string{"joining"},
		Summary: "Let a refused client into the inbox again", Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		Block string `path:"block" maxLength:"64"`
	},
	) (*struct{}, error) {
		var hash [32]byte
		b, err := hex.DecodeString(in.Block)
		if err != nil || len(b) != len(hash) {
			return nil, muster.Errorf(muster.NotFound, "there is no such blocked client")
		}
		copy(hash[:], b)
		return nil, a.Joining.Unblock(ctx, hash)
	})
}
