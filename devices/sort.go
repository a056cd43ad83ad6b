package devices

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"

	"muster"
)

// maxSortText is how much of a text value counts when a list is sorted by it, in bytes.
const maxSortText = 128

// order is how a list is sorted.
type order struct {
	field string // id, name, ... or v
	key   string // of v
	down  bool
	plain bool // by id upwards, as candidates come
}

// sortKey is what a device is sorted by. None is for what it does not have.
type sortKey struct {
	none bool
	num  float64
	text string
	id   muster.DeviceID
}

func parseSort(s string) (order, error) {
	o := order{field: cmp.Or(s, "id")}
	if rest, ok := strings.CutPrefix(o.field, "-"); ok {
		o.field, o.down = rest, true
	}
	if key, ok := strings.CutPrefix(o.field, "v."); ok && key != "" {
		o.field, o.key = "v", key
	}
	switch o.field {
	case "id":
		o.plain = !o.down
	case "name", "profile", "firmware", "status", "seen", "created", "v":
	default:
		return o, muster.InvalidAt("sort", "sort is none of id, name, profile, firmware, status, seen, created and v.KEY, with a - for the largest first")
	}
	return o, nil
}

// CheckSort returns Invalid unless s is an order as Selection has it.
func CheckSort(s string) error {
	o, err := parseSort(s)
	if err == nil && checkText("", o.key, maxKey) != nil {
		err = muster.InvalidAt("sort", "the key of sort is none")
	}
	return err
}

// of returns what s is sorted by.
func (o *order) of(s *subject) sortKey {
	k := sortKey{id: s.d.ID}
	switch o.field {
	case "id":
	case "name":
		k.text = s.d.Name
	case "profile":
		k.text = s.d.Profile
	case "firmware":
		k.text = s.d.Firmware
	case "status":
		state, _, _ := s.Presence()
		k.text = string(muster.StatusOf(state, s.Updating()))
		return k
	case "created":
		k.num = float64(s.d.Created)
		return k
	case "seen":
		_, seen, _ := s.Presence()
		k.num = float64(seen)
		k.none = k.num == 0
		return k
	default:
		v, ok := s.Value(o.key)
		k.none, k.num, k.text = !ok || math.IsNaN(v.Num), v.Num, v.Text[:min(len(v.Text), maxSortText)]
		return k
	}
	k.none = k.text == "" && o.field != "id"
	return k
}

func (o *order) compare(a, b *sortKey) int {
	if a.none != b.none {
		if a.none {
			return 1
		}
		return -1
	}
	c := cmp.Compare(a.num, b.num)
	if c == 0 {
		c = strings.Compare(a.text, b.text)
	}
	ids := 0
	if c == 0 { // mostly it is not, and ids are long
		ids = strings.Compare(string(a.id), string(b.id))
	}
	if o.field == "id" {
		c = ids
	}
	if o.down {
		c = -c
	}
	return cmp.Or(c, ids)
}

// mark is a cursor as it is written.
type mark struct {
	Field string  `json:"f"`
	None  bool    `json:"x,omitempty"`
	Num   float64 `json:"n,omitempty"`
	Text  []byte  `json:"t,omitempty"` // may end within a character, which a JSON string cannot
	ID    string  `json:"i"`
}

func (o *order) name() string {
	name := o.field
	if o.key != "" {
		name += "." + o.key
	}
	if o.down {
		name = "-" + name
	}
	return name
}

func (o *order) next(k sortKey) string {
	m := mark{Field: o.name(), None: k.none, Text: []byte(k.text), ID: string(k.id)}
	if !k.none {
		m.Num = k.num
	}
	b, err := json.Marshal(m)
	if err != nil {
		return "" // numbers that JSON cannot have are none
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxCursor is the longest cursor that is read, in bytes.
const maxCursor = 4 << 10

func (o *order) cursor(s string) (*sortKey, error) {
	if s == "" {
		return nil, nil
	}
	bad := muster.At(muster.Errorf(muster.Invalid, "the cursor is not one of this list and sort"), "cursor", "after")
	if len(s) > maxCursor {
		return nil, bad
	}
	text, err := base64.RawURLEncoding.DecodeString(s)
	var m mark
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || m.Field != o.name() {
		return nil, bad
	}
	return &sortKey{none: m.None, num: m.Num, text: string(m.Text), id: muster.DeviceID(m.ID)}, nil
}
