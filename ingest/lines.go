package ingest

import (
	"bytes"
	"errors"
	"io"

	"muster"
)

// ErrLongLine says that a line was longer than allowed; the lines after it can be read.
var ErrLongLine = muster.Errorf(muster.TooLarge, "the line is too long")

const (
	firstLine = 32 << 10 // bytes of the buffer at first
	maxEmpty  = 100      // reads without a byte before the reader is given up
)

// Lines splits a stream into lines, of NDJSON or of the line protocol. It holds one line
// in memory, and reads no further ahead than that.
type Lines struct {
	r     io.Reader
	form  Form
	limit int
	buf   []byte

	start, pos, end int // of the line under way, what is looked at, what is read
	err             error
	skipping        bool // the rest of a line that was too long
	number          int  // of the line under way
	quotes          quotes
	firstFeed       int // the first line feed within a text, relative to start; 0 for none
}

// NewLines returns the lines of r, each of at most limit bytes.
func NewLines(r io.Reader, limit int, form Form) *Lines {
	return &Lines{r: r, form: form, limit: limit, number: 1}
}

// Next returns the next line that is neither blank nor a comment, without its end, and
// its number from 1. It is good until the next call. The error is io.EOF at the end,
// ErrLongLine with the beginning of a line that is too long, and else the reader's: what
// came of a line before that is not returned.
func (l *Lines) Next() (line []byte, number int, err error) {
	for {
		at, err := l.find()
		if err != nil {
			number, l.number = l.number, l.number+1
			if errors.Is(err, ErrLongLine) {
				line = l.buf[l.start:l.end]
				l.start, l.pos, l.skipping = l.end, l.end, true
			}
			return line[:min(len(line), l.limit)], number, err
		}
		line, number = l.buf[l.start:at], l.number
		l.number += 1 + bytes.Count(line, []byte{'\n'})
		l.start = min(at+1, l.end)
		l.pos, l.quotes, l.firstFeed = l.start, quotes{}, 0
		if l.skipping {
			l.skipping, l.number = false, l.number-1 // its beginning was counted
			continue
		}
		if len(line) > l.limit {
			return line[:l.limit], number, ErrLongLine
		}
		line = bytes.TrimRight(line, " \t\r")
		if rest := bytes.TrimLeft(line, " \t"); len(rest) > 0 && (l.form != FormLine || rest[0] != '#') {
			return line, number, nil
		}
	}
}

// find returns where the line under way ends, reading on as need be.
func (l *Lines) find() (int, error) {
	for {
		if at := l.scan(); at >= 0 {
			return at, nil
		}
		if l.err == nil && l.end-l.start <= l.limit {
			l.fill()
			continue
		}
		if l.firstFeed > 0 { // a text that does not end takes no other line with it
			return l.start + l.firstFeed, nil
		}
		switch {
		case l.skipping && l.err == nil:
			l.start, l.pos = l.end, l.end
		case l.err == nil:
			return 0, ErrLongLine
		case errors.Is(l.err, io.EOF) && l.end > l.start:
			return l.end, nil
		default:
			return 0, l.err
		}
	}
}

// scan looks for the line's end in what is read and not looked at; -1 when it is not there.
func (l *Lines) scan() int {
	rest := l.buf[l.pos:l.end]
	feed := bytes.IndexByte(rest, '\n')
	plain := l.form != FormLine || l.skipping || l.pos == l.start && feed >= 0 && bytes.IndexByte(rest[:feed], '"') < 0
	if plain {
		if feed < 0 {
			l.pos = l.end
			return -1
		}
		return l.pos + feed
	}
	for ; l.pos < l.end; l.pos++ {
		if l.quotes.ends(l.buf[l.pos]) {
			return l.pos
		}
		if l.buf[l.pos] == '\n' && l.firstFeed == 0 {
			l.firstFeed = l.pos - l.start
		}
	}
	return -1
}

// fill reads more behind what there is.
func (l *Lines) fill() {
	if l.start > 0 {
		copy(l.buf, l.buf[l.start:l.end])
		l.start, l.pos, l.end = 0, l.pos-l.start, l.end-l.start
	}
	if l.end == len(l.buf) {
		grown := make([]byte, min(max(2*len(l.buf), firstLine), max(l.limit+1, firstLine)))
		copy(grown, l.buf[:l.end])
		l.buf = grown
	}
	for range maxEmpty {
		n, err := l.r.Read(l.buf[l.end:])
		l.end, l.err = l.end+n, err
		if n > 0 || err != nil {
			return
		}
	}
	l.err = io.ErrNoProgress
}

// quotes follows the texts of a line: a line feed in one does not end the line.
type quotes struct {
	begun, comment, fields, text, escaped, value bool
}

// ends takes the next byte of a line and says whether it is its end.
func (q *quotes) ends(c byte) bool {
	if c == '\n' && !q.text {
		return true
	}
	value := q.value
	q.value = false
	if q.escaped {
		q.escaped = false
		if q.text || lineEscapes(c) {
			return false
		}
	}
	switch {
	case q.comment:
	case !q.begun:
		q.begun, q.comment = c != ' ' && c != '\t', c == '#'
		q.escaped = c == '\\'
	case c == '\\':
		q.escaped = true
	case q.text:
		q.text = c != '"'
	case !q.fields:
		q.fields = c == ' '
	case c == '"':
		q.text = value
	default:
		q.value = c == '='
	}
	return false
}
