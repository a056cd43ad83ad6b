package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

var noon = muster.MicrosOf(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))

func newLineDecoder(omit string) *decoder {
	return &decoder{layouts: NewLayouts(), mint: func() bool { return true }, omit: omit}
}

// shown is what a line decodes to: its values as JSON and its time, or why it is refused.
func shown(d *decoder) string {
	if len(d.refused) > 0 {
		return d.refused[0].fault.code + ": " + d.refused[0].fault.reason
	}
	m := d.messages[0]
	r := muster.Reading{Layout: m.layout, Numbers: m.numbers, Texts: m.texts}
	if m.time == 0 {
		return string(AppendJSON(nil, &r))
	}
	return fmt.Sprintf("%s @%d", AppendJSON(nil, &r), m.time)
}

func TestALineIsOneMessage(t *testing.T) {
	tests := []struct {
		name, line, want string
		unit             time.Duration
	}{
		{"a float", "m f=1.5", `{"m.f":1.5}`, 0},
		{"several fields", "m a=1,b=-2.25,c=1e3", `{"m.a":1,"m.b":-2.25,"m.c":1000}`, 0},
		{"an integer", "m f=42i", `{"m.f":42}`, 0},
		{"an unsigned integer", "m f=42u", `{"m.f":42}`, 0},
		{"an integer beyond 2^53 with its digits", "m f=9223372036854775807i", `{"m.f":9223372036854775807}`, 0},
		{"an unsigned one too", "m f=18446744073709551615u", `{"m.f":18446744073709551615}`, 0},
		{"a float is one, however many digits it has", "m f=12345678901234567890", `{"m.f":12345678901234567000}`, 0},
		{"numbers that are no JSON", "m a=007,b=+1,c=1.,d=.5", `{"m.a":7,"m.b":1,"m.c":1,"m.d":0.5}`, 0},
		{
			"booleans", "m a=t,b=T,c=true,d=True,e=TRUE,f=f,g=F,h=false,i=False,j=FALSE",
			`{"m.a":true,"m.b":true,"m.c":true,"m.d":true,"m.e":true,"m.f":false,"m.g":false,"m.h":false,"m.i":false,"m.j":false}`, 0,
		},
		{"a text", `m f="on, a=b c"`, `{"m.f":"on, a=b c"}`, 0},
		{"a text with escapes", `m f="a \"b\" c:\\d \e"`, `{"m.f":"a \"b\" c:\\d \\e"}`, 0},
		{"a text of two lines", "m f=\"a\nb\"", `{"m.f":"a\nb"}`, 0},
		{"an empty text", `m f=""`, `{"m.f":""}`, 0},
		{"the device's tag is no part of a key", "m,device=d1 f=1", `{"m.f":1}`, 0},
		{"other tags are, in the order of their names", "cpu,host=h,device=d1,cpu=cpu0 idle=1", `{"cpu.cpu=cpu0.host=h.idle":1}`, 0},
		{"escapes in names", `my\ m,a\,b=c\=d,e=f\ g h\ i=1`, `{"my m.a,b=c=d.e=f g.h i":1}`, 0},
		{"a backslash before anything else", `m\x,a=b\c f=1`, `{"m\\x.a=b\\c.f":1}`, 0},
		{"an equals sign in the measurement", "a=b f=1", `{"a=b.f":1}`, 0},
		{"text that is not ASCII", `m,a=ä tü="ö"`, `{"m.a=ä.tü":"ö"}`, 0},
		{"the later of two fields of a name", "m f=1,f=2", `{"m.f":2}`, 0},
		{"nanoseconds", "m f=1 1772366400123456789", `{"m.f":1} @1772366400123456`, 0},
		{"microseconds", "m f=1 1772366400123456", `{"m.f":1} @1772366400123456`, time.Microsecond},
		{"milliseconds", "m f=1 1772366400123", `{"m.f":1} @1772366400123000`, time.Millisecond},
		{"seconds, and blanks about", " m  f=1  1772366400  ", `{"m.f":1} @1772366400000000`, time.Second},
		{"no time", "m f=1 ", `{"m.f":1}`, 0},

		{"nothing", " ", "malformed: a line begins with its measurement at byte 1", 0},
		{"no fields", "m", "malformed: a line has fields behind a space at byte 1", 0},
		{"no fields behind tags", "m,a=b", "malformed: a line has fields behind a space at byte 5", 0},
		{"no field behind the space", "m ", "malformed: a field is name=value at byte 2", 0},
		{"a field without a value", "m f=", "malformed: a field is name=value at byte 4", 0},
		{"a field without a name", "m =1", "malformed: a field is name=value at byte 2", 0},
		{"a comma too many", "m f=1, 5", "malformed: a field is name=value at byte 6", 0},
		{"a tag without a value", "m,a= f=1", "malformed: a tag is name=value at byte 4", 0},
		{"a tag without a name", "m,=b f=1", "malformed: a tag is name=value at byte 2", 0},
		{"a tag with two values", "m,a=b=c f=1", "malformed: a tag is name=value at byte 5", 0},
		{"a tag twice", "m,a=b,a=c f=1", "malformed: a tag is there twice at byte 9", 0},
		{"a word", "m f=hello", "malformed: a field's value is no number, text or boolean at byte 9", 0},
		{"not a number", "m f=NaN", "malformed: a field's value is no number, text or boolean at byte 7", 0},
		{"infinity", "m f=+Inf", "malformed: a field's value is no number, text or boolean at byte 8", 0},
		{"hexadecimal", "m f=0x1p-2", "malformed: a field's value is no number, text or boolean at byte 10", 0},
		{"a number beyond float64", "m f=1e999", "malformed: a field's number can not be read or is too large at byte 9", 0},
		{"an integer beyond 64 bits", "m f=9223372036854775808i", "malformed: a field's number can not be read or is too large at byte 24", 0},
		{"an unsigned one below zero", "m f=-1u", "malformed: a field's number can not be read or is too large at byte 7", 0},
		{"a text that does not end", `m f="abc`, "malformed: a text does not end at byte 8", 0},
		{"a text with something behind", `m f="a"b`, "malformed: something follows a text at byte 7", 0},
		{"a time that is none", "m f=1 noon", "malformed: the time stamp is no integer at byte 5", 0},
		{"two times", "m f=1 1 2", "malformed: the time stamp is no integer at byte 5", 0},
		{"a time of 1970", "m f=1 0", "time: time stamp 1970-01-01T00:00:00Z is before 2000", 0},
		{"a time before 1970", "m f=1 -5", "time: time stamp 1970-01-01T00:00:00Z is before 2000", 0},
		{"a time ahead", "m f=1 1772539200000000000", "time: time stamp 2026-03-03T12:00:00Z is more than 24 h ahead", 0},
		{"a time beyond all years", "m f=1 9223372036854775807", "time: the time stamp is beyond all years", time.Second},
		{"seconds taken for nanoseconds", "m f=1 1772366400", "time: time stamp 1970-01-01T00:00:01Z is before 2000", 0},
		{"no UTF-8", "m f=\"\xff\"", "malformed: the line is not UTF-8", 0},
		{"U+0000", "m f=\"a\x00\"", "text: text with U+0000 can not be stored", 0},
		{"a key that is too long", "m " + strings.Repeat("k", 300) + "=1", "malformed: a key must have 1 to 256 bytes", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newLineDecoder("device")
			d.decodeLine([]byte(tt.line), tt.unit, noon)
			got := shown(d)
			if len(d.messages)+len(d.refused) != 1 {
				t.Errorf("%d messages and %d refused", len(d.messages), len(d.refused))
			}
			if i := strings.Index(got, " at byte"); i > 0 && !strings.Contains(tt.want, " at byte") {
				got = got[:i]
			}
			if got != tt.want {
				t.Errorf("%q is\n%s, want\n%s", tt.line, got, tt.want)
			}
		})
	}
}

func TestTheFirstTagAskedForNamesTheDevice(t *testing.T) {
	tests := []struct{ name, line, tag, value string }{
		{"the first of two", "m,host=h,device=d f=1", "device", "d"},
		{"the second when the first is not there", "m,a=b,host=h f=1", "host", "h"},
		{"none", "m,a=b f=1", "", ""},
		{"no tag at all", "m device=1", "", ""},
		{"one with escapes", `m,device=a\ b f=1`, "device", "a b"},
		{"one in a name with escapes", `m\,device=x f=1`, "", ""},
		{"a line that is none", "m,=,device=d f=1", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tag, value, ok := LineTag([]byte(tt.line), []string{"device", "host"})
			if tag != tt.tag || string(value) != tt.value || ok != (tt.tag != "") {
				t.Errorf("LineTag gives %q %q %v, want %q %q", tag, value, ok, tt.tag, tt.value)
			}
		})
	}
}

// TestWhatIsWrittenAsALineReadsBack writes drawn values as Telegraf does and reads them.
func TestWhatIsWrittenAsALineReadsBack(t *testing.T) {
	name := rapid.StringMatching(`[A-Za-z_ ,=ä]{1,12}`)
	escape := strings.NewReplacer(",", `\,`, " ", `\ `, "=", `\=`)
	rapid.Check(t, func(t *rapid.T) {
		measurement, field := name.Draw(t, "measurement"), name.Draw(t, "field")
		num, text := rapid.Float64Range(-1e30, 1e30).Draw(t, "num"), rapid.StringMatching(`[ -~\n]{0,20}`).Draw(t, "text")
		line := fmt.Sprintf("%s,device=d %s=%v,x=", escape.Replace(measurement), escape.Replace(field), num) +
			`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `" 1772366400000000000`
		l := NewLines(strings.NewReader("x a=1\n"+line+"\nx a=2"), 1<<10, FormLine)
		var got []string
		for {
			one, _, err := l.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(one))
		}
		if d := cmp.Diff([]string{"x a=1", line, "x a=2"}, got); d != "" {
			t.Fatal(d)
		}
		d := newLineDecoder("device")
		d.decodeLine([]byte(line), 0, noon)
		want := map[string]string{measurement + ".x": string(AppendString(nil, text))}
		if field != "x" {
			want[measurement+"."+field] = string(AppendValue(nil, muster.Value{Num: num}))
		}
		if len(d.refused) > 0 {
			t.Fatalf("%q is refused: %s", line, d.refused[0].fault.reason)
		}
		m := d.messages[0]
		have := map[string]string{}
		r := muster.Reading{Layout: m.layout, Numbers: m.numbers, Texts: m.texts}
		for v := range r.Values {
			have[v.Key.Name] = string(AppendValue(nil, v))
		}
		if d := cmp.Diff(want, have); d != "" {
			t.Fatal(d)
		}
	})
}

type split struct {
	Line   string
	Number int
	Err    error
}

func TestAStreamIsSplitIntoLines(t *testing.T) {
	long := strings.Repeat("x", 40)
	tests := []struct {
		name, text string
		form       Form
		want       []split
	}{
		{"nothing", "", FormLine, nil},
		{"blank lines", "\n \r\n\t\n", FormLine, nil},
		{"a last line without its end", "a b=1\nc d=2", FormLine, []split{{"a b=1", 1, nil}, {"c d=2", 2, nil}}},
		{"carriage returns", "a b=1\r\n\r\nc d=2\r\n", FormLine, []split{{"a b=1", 1, nil}, {"c d=2", 3, nil}}},
		{"comments", "# it's \"one\na b=1\n  #two\nc d=2", FormLine, []split{{"a b=1", 2, nil}, {"c d=2", 4, nil}}},
		{"a hash begins no comment in JSON", "#x\n{}", FormJSON, []split{{"#x", 1, nil}, {"{}", 2, nil}}},
		{"a line feed in a text", "a b=\"1\n2\",c=\"\n\"\nd e=1", FormLine, []split{{"a b=\"1\n2\",c=\"\n\"", 1, nil}, {"d e=1", 4, nil}}},
		{"an escaped quote ends no text", "a b=\"1\\\"\n2\"\nd e=1", FormLine, []split{{"a b=\"1\\\"\n2\"", 1, nil}, {"d e=1", 3, nil}}},
		{"an escaped backslash before the end of a text", "a b=\"1\\\\\"\nd e=1", FormLine, []split{{"a b=\"1\\\\\"", 1, nil}, {"d e=1", 2, nil}}},
		{"a quote in a measurement, a tag or a field's name begins no text", "a\",b=\"c d\"e=1\nf g=1", FormLine, []split{{"a\",b=\"c d\"e=1", 1, nil}, {"f g=1", 2, nil}}},
		{"a text that does not end takes no other line with it", "a b=\"1\nc d=2\ne f=3", FormLine, []split{{"a b=\"1", 1, nil}, {"c d=2", 2, nil}, {"e f=3", 3, nil}}},
		{"nor when the lines after it are many", "a b=\"1\nc d=2\n" + long + "\n", FormLine, []split{{"a b=\"1", 1, nil}, {"c d=2", 2, nil}, {long[:32], 3, ErrLongLine}}},
		{"a line that is too long", long + "\na b=1", FormLine, []split{{long[:32], 1, ErrLongLine}, {"a b=1", 2, nil}}},
		{"one at the end", "a b=1\n" + long + long, FormJSON, []split{{"a b=1", 1, nil}, {(long + long)[:32], 2, ErrLongLine}}},
		{"one as long as may be", long[:32] + "\n" + long[:32], FormJSON, []split{{long[:32], 1, nil}, {long[:32], 2, nil}}},
	}
	for _, tt := range tests {
		for _, way := range []struct {
			name string
			r    func(io.Reader) io.Reader
		}{{"at once", func(r io.Reader) io.Reader { return r }}, {"by the byte", iotest.OneByteReader}, {"by halves", iotest.HalfReader}, {"with the end", iotest.DataErrReader}} {
			t.Run(tt.name+", "+way.name, func(t *testing.T) {
				l := NewLines(way.r(strings.NewReader(tt.text)), 32, tt.form)
				var got []split
				for {
					line, n, err := l.Next()
					if errors.Is(err, io.EOF) {
						break
					}
					got = append(got, split{string(line), n, err})
					if len(got) > 10 {
						break
					}
				}
				if d := cmp.Diff(tt.want, got, cmp.Comparer(errors.Is)); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func TestALineThatWasCutByAnErrorIsNotTaken(t *testing.T) {
	broken := errors.New("the client is gone")
	l := NewLines(io.MultiReader(strings.NewReader("a b=1\nc d=2"), iotest.ErrReader(broken)), 100, FormLine)
	if line, n, err := l.Next(); string(line) != "a b=1" || n != 1 || err != nil {
		t.Fatalf("the first line is %q %d %v", line, n, err)
	}
	if line, n, err := l.Next(); len(line) != 0 || n != 2 || !errors.Is(err, broken) {
		t.Errorf("the second is %q %d %v", line, n, err)
	}
}

func TestAStreamOfLinesKeepsOneInMemory(t *testing.T) {
	row := []byte("m,device=d f=1,g=\"text\n with lines\" 1772366400000000000\n")
	l := NewLines(io.LimitReader(&repeat{row}, 20<<20), 256<<10, FormLine)
	n := 0
	for {
		if _, _, err := l.Next(); err != nil {
			break
		}
		n++
	}
	if n < 20<<20/len(row) || len(l.buf) > firstLine {
		t.Errorf("%d lines, with a buffer of %d bytes", n, len(l.buf))
	}
}

// repeat is a stream of one text again and again.
type repeat struct{ b []byte }

func (r *repeat) Read(p []byte) (int, error) {
	n := 0
	for n+len(r.b) <= len(p) {
		n += copy(p[n:], r.b)
	}
	if n == 0 {
		n = copy(p, r.b)
		r.b = append(bytes.Clone(r.b[n:]), r.b[:n]...)
	}
	return n, nil
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{
		"cpu,host=h,cpu=cpu0 usage_idle=98.5,n=1i 1772366400000000000", `m,a\ b=c\,d e="f \" g",h=t`, "m f=\"a\nb\"\nn g=2u -1", "#c\n m  f=1 ", "m f=1e400", "m,=",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l := NewLines(bytes.NewReader(b), 256, FormLine)
		last := 0
		for {
			line, n, err := l.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if n <= last || len(line) > 256 || err != nil && !errors.Is(err, ErrLongLine) {
				t.Fatalf("line %d after %d, %d bytes, %v", n, last, len(line), err)
			}
			last = n
			d := newLineDecoder("device")
			d.decodeLine(line, time.Millisecond, noon)
			if len(d.messages)+len(d.refused) != 1 {
				t.Fatalf("%q is %d messages and %d refused", line, len(d.messages), len(d.refused))
			}
			if len(d.messages) == 1 {
				checkDecoded(t, d)
			}
			_, _, _ = LineTag(line, []string{"device", "host"})
		}
		if lines := 1 + bytes.Count(b, []byte{'\n'}); last > lines {
			t.Fatalf("line %d of %d", last, lines)
		}
	})
}

// checkDecoded checks that what was decoded can be written to a frame and read back.
func checkDecoded(t *testing.T, d *decoder) {
	t.Helper()
	m := &d.messages[0]
	w := newFrameWriter()
	r := muster.Reading{Device: "d", Time: m.time, Arrival: noon, Layout: m.layout, Numbers: m.numbers, Texts: m.texts}
	w.reading(&r)
	got, _, _, err := readFrame(w.seal(0), func(l *muster.Layout) *muster.Layout { return l })
	if err != nil || len(got) != 1 {
		t.Fatalf("it does not read back: %v", err)
	}
	if a, b := AppendJSON(nil, &r), AppendJSON(nil, &got[0]); !bytes.Equal(a, b) {
		t.Fatalf("%s reads back as %s", a, b)
	}
}

func BenchmarkDecodeLine(b *testing.B) {
	line := []byte("environment,device=device-0001,room=hall temperature=21.5,humidity=40,pressure=1013.2,battery=87i,rssi=-71i,a=1,b=2.5,c=3,d=4.25,e=true 1772366400123456789")
	d := newLineDecoder("device")
	names := []string{"device", "host"}
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, _, ok := LineTag(line, names); !ok {
			b.Fatal("no device")
		}
		d.decodeLine(line, 0, noon)
		if len(d.refused) > 0 {
			b.Fatal(d.refused[0].fault.reason)
		}
	}
}
