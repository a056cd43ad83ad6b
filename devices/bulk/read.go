package bulk

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"muster"
	"muster/devices"
)

// Read calls each for every line of in, with the row or with why the line is refused,
// until the end. It fails with Invalid or TooLarge when the list as a whole cannot be
// read: a bad header, a line or a list that is too long; and with what in fails with.
func Read(in io.Reader, f Format, each func(r Row, line int, refused error) error) error {
	switch f {
	case CSV:
		return readCSV(in, each)
	case NDJSON:
		return readNDJSON(in, each)
	default:
		return muster.Errorf(muster.Invalid, "the format is neither csv nor ndjson")
	}
}

func readCSV(in io.Reader, each func(Row, int, error) error) error {
	r := csv.NewReader(&lineLimit{in: bufio.NewReaderSize(skipBOM(in), 64<<10)})
	r.ReuseRecord = true
	r.FieldsPerRecord = -1
	head, err := r.Read()
	if bad, ok := errors.AsType[*csv.ParseError](err); ok {
		return muster.Errorf(muster.Invalid, "line %d: %s", bad.Line, bad.Err)
	}
	if err != nil {
		return readError(err, "the header line")
	}
	names, err := header(head)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if bad, ok := errors.AsType[*csv.ParseError](err); ok { // the rest may be part of a quoted field
			return muster.Errorf(muster.Invalid, "line %d: %s", bad.Line, bad.Err)
		}
		if err != nil {
			return readError(err, "the list")
		}
		if n > MaxLines {
			return errLines()
		}
		line, _ := r.FieldPos(0)
		row, refused := csvRow(names, record, line)
		if err := each(row, line, refused); err != nil {
			return err
		}
	}
}

func header(head []string) ([]string, error) {
	if len(head) > MaxColumns {
		return nil, muster.Errorf(muster.Invalid, "%d columns, at most %d are read", len(head), MaxColumns)
	}
	names := make([]string, len(head))
	for i, h := range head {
		names[i] = strings.Clone(strings.TrimSpace(h))
		known := slices.Contains(columns[:], names[i]) || strings.HasPrefix(names[i], tagColumn) || slices.Contains(shown[:], names[i])
		if !known {
			return nil, muster.Errorf(muster.Invalid, "there is no column %.64q; there are %s and tag.KEY", names[i], strings.Join(columns[:], ", "))
		}
		if slices.Contains(names[:i], names[i]) {
			return nil, muster.Errorf(muster.Invalid, "the column %.64q is there twice", names[i])
		}
	}
	if !slices.Contains(names, "id") {
		return nil, muster.Errorf(muster.Invalid, "there is no column id")
	}
	return names, nil
}

func csvRow(names, record []string, line int) (Row, error) {
	row := Row{Line: line}
	if len(record) != len(names) {
		return row, muster.Errorf(muster.Invalid, "%d fields, the header has %d", len(record), len(names))
	}
	var c cells
	for i, text := range record {
		if slices.Contains(shown[:], names[i]) {
			continue // an export's, for people
		}
		if !utf8.ValidString(text) {
			return row, muster.Errorf(muster.Invalid, "column %s is not UTF-8", names[i])
		}
		if err := row.set(names[i], strings.Clone(text), &c); err != nil {
			return row, err
		}
	}
	if row.ID == "" {
		return row, muster.Errorf(muster.Invalid, "there is no id")
	}
	err := c.finish(&row)
	return row, err
}

// object is a line of NDJSON. Fields that an export has beside those that can be
// set are read and have no effect.
type object struct {
	ID         string             `json:"id"`
	Name       *string            `json:"name"`
	Profile    *string            `json:"profile"`
	Parent     *string            `json:"parent"`
	Tags       map[string]*string `json:"tags"`
	Groups     *[]string          `json:"groups"`
	Location   *place             `json:"location"`
	CheckIn    *int64             `json:"check_in_s"`
	Notes      *string            `json:"notes"`
	Credential string             `json:"credential"`
	Token      string             `json:"token"`
	Secret     string             `json:"secret"`

	Created  json.RawMessage `json:"created_at"`
	Presence json.RawMessage `json:"presence"`
	LastSeen json.RawMessage `json:"last_seen"`
	Firmware json.RawMessage `json:"firmware"`
}

type place struct {
	Lat   *float64 `json:"lat,omitempty"`
	Lon   *float64 `json:"lon,omitempty"`
	Label string   `json:"label,omitempty"`
}

func readNDJSON(in io.Reader, each func(Row, int, error) error) error {
	r := bufio.NewReaderSize(skipBOM(in), MaxLine+2)
	for line, n := 1, 0; ; line++ {
		text, err := r.ReadSlice('\n')
		end := errors.Is(err, io.EOF)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return muster.Errorf(muster.TooLarge, "line %d is longer than %d bytes", line, MaxLine)
		case err != nil && !end:
			return readError(err, "the list")
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if n++; n > MaxLines {
				return errLines()
			}
			row, refused := jsonRow(text, line)
			if err := each(row, line, refused); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

func jsonRow(text []byte, line int) (Row, error) {
	row := Row{Line: line}
	var o object
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return row, muster.Errorf(muster.Invalid, "not an object of a device: %s", plain(err))
	}
	if d.More() {
		return row, muster.Errorf(muster.Invalid, "more than one object on a line")
	}
	id, err := muster.ParseDeviceID(o.ID)
	if err != nil {
		return row, err
	}
	row.ID, row.Name, row.Profile, row.Groups, row.CheckIn, row.Notes = id, o.Name, o.Profile, o.Groups, o.CheckIn, o.Notes
	if o.Parent != nil {
		parent := muster.DeviceID(*o.Parent)
		row.Parent = &parent
	}
	for k, v := range o.Tags {
		row.addTag(k, deref(v))
	}
	if l := o.Location; l != nil {
		if (l.Lat == nil) != (l.Lon == nil) {
			return row, muster.Errorf(muster.Invalid, "a location has both lat and lon, or neither")
		}
		row.Location = &devices.Location{Set: l.Lat != nil, Lat: deref(l.Lat), Lon: deref(l.Lon), Label: l.Label}
	}
	err = row.wish(o.Credential, o.Token, o.Secret)
	return row, err
}

// plain says what is wrong with a line without Go's words for it, and without the
// line's own text, which may have a secret.
func plain(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("broken JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Sprintf("%s is not of its type", kind.Field)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "broken JSON: it ends too early"
	}
	if _, name, ok := strings.Cut(err.Error(), "unknown field "); ok {
		return fmt.Sprintf("there is no field %.64s", name)
	}
	return "broken JSON"
}

func readError(err error, what string) error {
	if errors.Is(err, io.EOF) {
		return muster.Errorf(muster.Invalid, "%s is missing", what)
	}
	if _, ok := errors.AsType[*muster.Error](err); ok {
		return err
	}
	return fmt.Errorf("read %s: %w", what, err)
}

func errLines() error {
	return muster.Errorf(muster.TooLarge, "more than %d lines", MaxLines)
}

// skipBOM leaves out the mark that spreadsheets write before UTF-8.
func skipBOM(in io.Reader) io.Reader {
	b := bufio.NewReader(in)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" {
		_, _ = b.Discard(3) // they were peeked
	}
	return b
}

// lineLimit fails when a line is too long, which csv would read whole.
type lineLimit struct {
	in *bufio.Reader
	n  int
}

func (l *lineLimit) Read(p []byte) (int, error) {
	n, err := l.in.Read(p)
	for _, c := range p[:n] {
		if l.n++; c == '\n' {
			l.n = 0
		}
		if l.n > MaxLine {
			return 0, muster.Errorf(muster.TooLarge, "a line is longer than %d bytes", MaxLine)
		}
	}
	return n, err //nolint:wrapcheck // a reader in the middle
}
