package bulk

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"muster"
	"muster/devices"
)

// shown are the columns of an export beside those that can be imported. An import
// passes them over.
var shown = [...]string{"firmware", "status", "last_seen", "created_at"}

// exported are the columns of a CSV export, in order. Secrets are not kept and so
// not among them.
var exported = [...]string{
	"id", "name", "profile", "parent", "tags", "groups", "lat", "lon", "location", "check_in_s", "notes",
	"firmware", "status", "last_seen", "created_at",
}

// Writer writes devices as a list that Read takes back.
type Writer struct {
	out    io.Writer
	format Format
	csv    *csv.Writer
	buf    bytes.Buffer
}

// NewWriter returns a Writer that writes to out; CSV begins with its header.
func NewWriter(out io.Writer, f Format) (*Writer, error) {
	w := &Writer{out: out, format: f}
	if f != CSV {
		return w, nil
	}
	w.csv = csv.NewWriter(&w.buf)
	if err := w.csv.Write(exported[:]); err != nil {
		return nil, fmt.Errorf("write the header: %w", err)
	}
	err := w.Flush()
	return w, err
}

// Write adds a device with its presence.
func (w *Writer) Write(d devices.Device, p muster.Presence) error {
	if w.format == CSV {
		return w.writeCSV(d, p)
	}
	return w.writeJSON(d, p)
}

// Flush hands out what is buffered.
func (w *Writer) Flush() error {
	if w.csv != nil {
		w.csv.Flush()
	}
	_, err := w.buf.WriteTo(w.out)
	if err != nil {
		return fmt.Errorf("write the list: %w", err)
	}
	return nil
}

// flushSize is when what is buffered is handed out.
const flushSize = 64 << 10

func (w *Writer) full() error {
	if w.buf.Len() < flushSize {
		return nil
	}
	return w.Flush()
}

func (w *Writer) writeCSV(d devices.Device, p muster.Presence) error {
	var lat, lon, check, seen string
	if d.Location.Set {
		lat = strconv.FormatFloat(d.Location.Lat, 'f', -1, 64)
		lon = strconv.FormatFloat(d.Location.Lon, 'f', -1, 64)
	}
	if d.CheckIn > 0 {
		check = strconv.FormatInt(d.CheckIn, 10)
	}
	if p.LastSeen > 0 {
		seen = stamp(p.LastSeen)
	}
	// A tag with ; or = in its value has no place in one cell: the NDJSON export has it.
	var tags []string
	for k, v := range d.Tags.All() {
		tags = append(tags, k+"="+v)
	}
	err := w.csv.Write([]string{
		string(d.ID), Cell(d.Name), d.Profile, string(d.Parent), Cell(strings.Join(tags, ";")), strings.Join(d.Groups.Names(), ";"),
		lat, lon, Cell(d.Location.Label), check, Cell(d.Notes), Cell(d.Firmware), string(p.State), seen, stamp(d.Created),
	})
	if err != nil {
		return fmt.Errorf("write a line: %w", err)
	}
	return w.full()
}

// Cell keeps a spreadsheet from taking a text for a formula: see OWASP, CSV injection.
func Cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

func (w *Writer) writeJSON(d devices.Device, p muster.Presence) error {
	type line struct {
		ID       muster.DeviceID `json:"id"`
		Name     string          `json:"name,omitempty"`
		Profile  string          `json:"profile"`
		Parent   muster.DeviceID `json:"parent,omitempty"`
		Tags     devices.Tags    `json:"tags"`
		Groups   []string        `json:"groups"`
		Location *place          `json:"location,omitempty"`
		CheckIn  int64           `json:"check_in_s,omitempty"`
		Notes    string          `json:"notes,omitempty"`
		Firmware string          `json:"firmware,omitempty"`
		Presence string          `json:"presence"`
		LastSeen string          `json:"last_seen,omitempty"`
		Created  string          `json:"created_at"`
	}
	l := line{
		ID: d.ID, Name: d.Name, Profile: d.Profile, Parent: d.Parent, Tags: d.Tags, Groups: d.Groups.Names(), CheckIn: d.CheckIn,
		Notes: d.Notes, Firmware: d.Firmware, Presence: string(p.State), Created: stamp(d.Created),
	}
	if p.LastSeen > 0 {
		l.LastSeen = stamp(p.LastSeen)
	}
	if d.Location != (devices.Location{}) {
		l.Location = &place{Label: d.Location.Label}
		if d.Location.Set {
			l.Location.Lat, l.Location.Lon = &d.Location.Lat, &d.Location.Lon
		}
	}
	if err := json.NewEncoder(&w.buf).Encode(l); err != nil {
		return fmt.Errorf("write a line: %w", err)
	}
	return w.full()
}

func stamp(m muster.Micros) string { return m.Time().Format("2006-01-02T15:04:05.000000Z07:00") }
