package bulk

import (
	"cmp"
	"strconv"
	"strings"

	"muster"
	"muster/devices"
)

// Limits of what is read.
const (
	// MaxLines is the most devices one import takes.
	MaxLines = 1_000_000
	// MaxLine is the longest line, in bytes.
	MaxLine = 64 << 10
	// MaxColumns is the most columns of a CSV file.
	MaxColumns = 100
)

// Format is how a list of devices is written.
type Format string

// The formats: CSV as RFC 4180 has it, in UTF-8, with a header line; NDJSON, one JSON
// object on each line.
const (
	CSV    Format = "csv"
	NDJSON Format = "ndjson"
)

// Row is a device as one line of a list has it. A field that the line does not have
// is nil, and stays as it is when the device exists.
type Row struct {
	Line       int // of the input, from 1
	ID         muster.DeviceID
	Name       *string
	Profile    *string
	Parent     *muster.DeviceID
	Tags       map[string]string // those that the line has; an empty value takes a tag away
	Groups     *[]string
	Location   *devices.Location
	CheckIn    *int64 // seconds
	Notes      *string
	Credential devices.CredentialKind // what to make with a new device; empty for none
	Given      string                 // token or secret that the line brings
}

// spec returns the device that r describes.
func (r *Row) spec() (devices.Spec, error) {
	s := devices.Spec{
		ID: r.ID, Name: deref(r.Name), Profile: deref(r.Profile), Parent: deref(r.Parent), Location: deref(r.Location),
		CheckIn: deref(r.CheckIn), Notes: deref(r.Notes), Credential: r.Credential, Given: r.Given,
	}
	tags := make(map[string]string, len(r.Tags))
	for k, v := range r.Tags {
		if v != "" {
			tags[k] = v
		}
	}
	var err error
	if s.Tags, err = devices.TagsOf(tags); err != nil {
		return s, err
	}
	s.Groups, err = devices.GroupsOf(deref(r.Groups))
	return s, err
}

// change returns what r changes on a device that exists.
func (r *Row) change() (devices.Change, error) {
	c := devices.Change{
		Name: r.Name, Profile: r.Profile, Parent: r.Parent, Location: r.Location, CheckIn: r.CheckIn, Notes: r.Notes,
	}
	for k, v := range r.Tags {
		if v == "" {
			c.DropTags = append(c.DropTags, k)
			continue
		}
		if c.AddTags == nil {
			c.AddTags = map[string]string{}
		}
		c.AddTags[k] = v
	}
	if r.Groups != nil {
		groups, err := devices.GroupsOf(*r.Groups)
		if err != nil {
			return c, err
		}
		c.Groups = &groups
	}
	return c, nil
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// tagColumn begins the name of a column that has one tag: tag.site.
const tagColumn = "tag."

// columns are the names of CSV's columns, in the order of an export.
var columns = [...]string{
	"id", "name", "profile", "parent", "tags", "groups", "lat", "lon", "location", "check_in_s", "notes",
	"credential", "token", "secret",
}

// set writes the text of one CSV column into r. An empty cell is a field that the
// line does not have, but for groups and tags of an existing column: see cells.
func (r *Row) set(column, text string, c *cells) error {
	if text == "" {
		return nil
	}
	switch column {
	case "id":
		id, err := muster.ParseDeviceID(text)
		r.ID = id
		return err
	case "name":
		r.Name = &text
	case "profile":
		r.Profile = &text
	case "parent":
		id, err := muster.ParseDeviceID(text)
		r.Parent = &id
		return err
	case "tags":
		return r.addTags(text)
	case "groups":
		list := strings.Split(text, ";")
		r.Groups = &list
	case "check_in_s":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return muster.Errorf(muster.Invalid, "check_in_s is not a number of seconds")
		}
		r.CheckIn = &n
	case "notes":
		r.Notes = &text
	case "lat", "lon", "location", "credential", "token", "secret":
		c.put(column, text)
	default:
		key, ok := strings.CutPrefix(column, tagColumn)
		if !ok {
			return muster.Errorf(muster.Invalid, "there is no column %.64q", column)
		}
		r.addTag(key, text)
	}
	return nil
}

// addTags reads k=v;k2=v2.
func (r *Row) addTags(text string) error {
	for part := range strings.SplitSeq(text, ";") {
		k, v, ok := strings.Cut(part, "=")
		if !ok {
			return muster.Errorf(muster.Invalid, "tags are written key=value;key=value")
		}
		r.addTag(k, v)
	}
	return nil
}

func (r *Row) addTag(k, v string) {
	if r.Tags == nil {
		r.Tags = map[string]string{}
	}
	r.Tags[k] = v
}

// cells are the columns that mean something together only.
type cells struct{ lat, lon, label, credential, token, secret string }

func (c *cells) put(column, text string) {
	switch column {
	case "lat":
		c.lat = text
	case "lon":
		c.lon = text
	case "location":
		c.label = text
	case "credential":
		c.credential = text
	case "token":
		c.token = text
	case "secret":
		c.secret = text
	}
}

// finish writes what c has into r.
func (c *cells) finish(r *Row) error {
	if err := c.place(r); err != nil {
		return err
	}
	return r.wish(c.credential, c.token, c.secret)
}

func (c *cells) place(r *Row) error {
	if c.lat == "" && c.lon == "" && c.label == "" {
		return nil
	}
	l := devices.Location{Label: c.label}
	if c.lat != "" || c.lon != "" {
		lat, errLat := strconv.ParseFloat(c.lat, 64)
		lon, errLon := strconv.ParseFloat(c.lon, 64)
		if errLat != nil || errLon != nil {
			return muster.Errorf(muster.Invalid, "lat and lon are not both numbers")
		}
		l.Set, l.Lat, l.Lon = true, lat, lon
	}
	r.Location = &l
	return nil
}

// wish says which credential a new device gets: a token unless the line says another.
func (r *Row) wish(kind, token, secret string) error {
	switch {
	case token != "" && secret != "":
		return muster.Errorf(muster.Invalid, "a line has a token or a secret, not both")
	case token != "" && kind != "" && kind != "token", secret != "" && kind != "" && kind != "secret":
		return muster.Errorf(muster.Invalid, "the credential is not of the kind that the line names")
	case secret != "" || kind == "secret":
		r.Credential = devices.Secret
	case kind == "none":
	case kind == "" || kind == "token":
		r.Credential = devices.Token
	default:
		return muster.Errorf(muster.Invalid, "the credential is none of token, secret and none")
	}
	r.Given = cmp.Or(token, secret)
	return nil
}
