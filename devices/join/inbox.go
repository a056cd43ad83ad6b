package join

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"slices"
	"strings"
	"sync"

	"muster"
)

const (
	// MaxCandidates is how many clients wait in the inbox at most: the one that was away
	// for longest gives way, those without messages first.
	MaxCandidates = 1000
	// MaxSamples is how many messages of a candidate are kept, the last ones.
	MaxSamples = 20
	// MaxSample is how much of a message is kept, in bytes.
	MaxSample = 4 << 10

	maxSampleTopic = 512      // bytes
	maxSamples     = 32 << 20 // bytes of all samples together; a candidate that goes over loses its own oldest
)

// Sample is a message of a candidate.
type Sample struct {
	At      muster.Micros
	Topic   string // cut to 512 bytes
	Payload []byte // cut to MaxSample bytes; must not be changed
	Size    int    // of the whole payload
}

// Candidate is a client that asks to be adopted.
type Candidate struct {
	ID       string // a device id, free when it came
	ClientID string
	Username string // empty when that was the key
	Peer     string // host:port
	Listener string
	KeyName  string
	First    muster.Micros // came in
	Last     muster.Micros // came in or sent something
	Messages int64         // that it sent
	Samples  []Sample      // newest last

	key   string   // id of the adoption key
	who   [32]byte // of client id and user name
	grant [32]byte // hash of the credential it would be given
}

// inbox holds the candidates.
type inbox struct {
	mu    sync.Mutex
	byID  map[string]*Candidate
	byWho map[[32]byte]*Candidate
	bytes int // of samples
}

func (in *inbox) init() {
	in.byID, in.byWho = map[string]*Candidate{}, map[[32]byte]*Candidate{}
}

// arrival is a client that comes in.
type arrival struct {
	who, grant         [32]byte
	clientID, username string
	peer, listener     string
	key, keyName       string
	at                 muster.Micros
	taken              func(id string) bool // by a device
}

// enter returns the candidate that a client is.
func (in *inbox) enter(a arrival) Candidate {
	id := freeID(a)
	in.mu.Lock()
	defer in.mu.Unlock()
	c, ok := in.byWho[a.who]
	if !ok {
		if len(in.byID) >= MaxCandidates {
			in.makeRoom()
		}
		if _, clash := in.byID[id]; clash {
			id = distinct(id, a.who)
		}
		c = &Candidate{
			ID: id, ClientID: strings.Clone(a.clientID), Username: strings.Clone(a.username), First: a.at, who: a.who,
		}
		in.byID[id], in.byWho[a.who] = c, c
	}
	c.Peer, c.Listener, c.Last = a.peer, a.listener, max(c.Last, a.at)
	c.key, c.KeyName, c.grant = a.key, a.keyName, a.grant
	return *c
}

// makeRoom drops the candidate of which nothing was heard for longest, those without
// messages first.
func (in *inbox) makeRoom() {
	var oldest *Candidate
	for _, c := range in.byID {
		if oldest == nil || order(c, oldest) < 0 {
			oldest = c
		}
	}
	in.remove(oldest)
}

func order(a, b *Candidate) int {
	silent := func(c *Candidate) int { return min(int(c.Messages), 1) }
	return cmp.Or(cmp.Compare(silent(a), silent(b)), cmp.Compare(a.Last, b.Last), cmp.Compare(a.ID, b.ID))
}

func (in *inbox) remove(c *Candidate) {
	for _, s := range c.Samples {
		in.bytes -= len(s.Payload) + len(s.Topic)
	}
	delete(in.byID, c.ID)
	delete(in.byWho, c.who)
}

// freeID makes a device id of what a client calls itself, one that no device has.
func freeID(a arrival) string {
	id := validID(cmp.Or(a.clientID, a.username))
	if _, err := muster.ParseDeviceID(id); err != nil || a.taken(id) {
		return distinct(id, a.who)
	}
	return id
}

// validID puts a hyphen in the place of what a device id may not have.
func validID(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < 128 && (c == '.' || c == '_' || c == ':' || c == '-' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z') {
			return c
		}
		return '-'
	}, s)
	return s[:min(len(s), muster.MaxDeviceID)]
}

// distinct ends an id with a part of the hash of who it is for.
func distinct(id string, who [32]byte) string {
	end := "-" + hex.EncodeToString(who[:6])
	return id[:min(len(id), muster.MaxDeviceID-len(end))] + end
}

// get returns one candidate.
func (in *inbox) get(id string) (Candidate, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	c, ok := in.byID[id]
	if !ok {
		return Candidate{}, false
	}
	out := *c
	out.Samples = slices.Clone(c.Samples)
	return out, true
}

func (in *inbox) leave(id string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if c, ok := in.byID[id]; ok {
		in.remove(c)
	}
}

// leaveBy takes out the candidates that came by an adoption key and returns their
// guests' credentials.
func (in *inbox) leaveBy(key string) (gone []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, c := range in.byID {
		if c.key == key {
			gone = append(gone, candidateGuest+c.ID)
			in.remove(c)
		}
	}
	return gone
}

// keyOf returns the adoption key by which the guest with this credential is here.
func (in *inbox) keyOf(credential string) (string, bool) {
	id, ok := strings.CutPrefix(credential, candidateGuest)
	if !ok {
		return "", false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	c, ok := in.byID[id]
	if !ok {
		return "", false
	}
	return c.key, true
}

// Inbox returns every candidate without its samples, the one last heard of first.
func (j *Join) Inbox() []Candidate {
	in := &j.inbox
	in.mu.Lock()
	out := make([]Candidate, 0, len(in.byID))
	for _, c := range in.byID {
		view := *c
		view.Samples = nil
		out = append(out, view)
	}
	in.mu.Unlock()
	slices.SortFunc(out, func(a, b Candidate) int { return cmp.Or(cmp.Compare(b.Last, a.Last), cmp.Compare(a.ID, b.ID)) })
	return out
}

// Candidate returns one with its samples, or NotFound.
func (j *Join) Candidate(id string) (Candidate, error) {
	c, ok := j.inbox.get(id)
	if !ok {
		return Candidate{}, errNoCandidate()
	}
	return c, nil
}

// Sample keeps a message of the candidate with this Guest.Credential. It copies the
// payload, and does nothing when the candidate is gone.
func (j *Join) Sample(credential, topic string, payload []byte) {
	at := muster.MicrosOf(j.now())
	id, ok := strings.CutPrefix(credential, candidateGuest)
	if !ok {
		return
	}
	s := Sample{
		At: at, Topic: strings.Clone(topic[:min(len(topic), maxSampleTopic)]),
		Payload: bytes.Clone(payload[:min(len(payload), MaxSample)]), Size: len(payload),
	}
	j.inbox.sample(id, s)
}

func (in *inbox) sample(id string, s Sample) {
	size := len(s.Payload) + len(s.Topic)
	in.mu.Lock()
	defer in.mu.Unlock()
	c, ok := in.byID[id]
	if !ok {
		return
	}
	c.Messages++
	c.Last = max(c.Last, s.At)
	for len(c.Samples) > 0 && (len(c.Samples) >= MaxSamples || in.bytes+size > maxSamples) {
		in.bytes -= len(c.Samples[0].Payload) + len(c.Samples[0].Topic)
		c.Samples[0] = Sample{}
		c.Samples = c.Samples[1:]
	}
	if in.bytes+size > maxSamples {
		return // counted only
	}
	in.bytes += size
	c.Samples = append(c.Samples, s)
}
