package deliver

import (
	"math"
	"net/http"
	"strconv"
	"strings"
)

// span is a piece of an image, [from, to) in bytes.
type span struct{ from, to int64 }

// tidy writes the Range header of r anew so that net/http, which looks at If-Range and the other
// conditions first, answers it as RFC 9110 has it (section 14.2): with exact numbers what is
// there of the pieces asked for; with a piece after the end, which is 416, what is asked for
// wrongly, too much of, or not there at all. Abuse costs no byte of an image: more than most
// pieces, and pieces that are more than the image together, are refused with 416.
func tidy(r *http.Request, size int64, most int) {
	lines := r.Header["Range"]
	if len(lines) == 0 {
		return
	}
	value, known := rangeSet(lines)
	if !known || r.Method != http.MethodGet { // ranges are defined for GET only
		r.Header.Del("Range")
		return
	}
	spans, ok := parse(value, size, most)
	if !ok || len(spans) == 0 {
		r.Header.Set("Range", "bytes="+strconv.FormatInt(size, 10)+"-")
		return
	}
	var b strings.Builder
	for i, s := range spans {
		sep := ","
		if i == 0 {
			sep = "bytes="
		}
		b.WriteString(sep + strconv.FormatInt(s.from, 10) + "-" + strconv.FormatInt(s.to-1, 10))
	}
	r.Header.Set("Range", b.String())
}

// rangeSet returns what follows "bytes=". Another unit, and the header twice, are as none.
func rangeSet(lines []string) (string, bool) {
	unit, set, ok := strings.Cut(lines[0], "=")
	return set, ok && len(lines) == 1 && strings.EqualFold(strings.TrimSpace(unit), "bytes")
}

// parse reads a set of ranges: what of it is there in an image of size bytes. False for what is
// none, has more than most pieces, or asks for more than the image in total.
func parse(set string, size int64, most int) (spans []span, ok bool) {
	pieces, total := 0, int64(0)
	for set != "" {
		var piece string
		piece, set, _ = strings.Cut(set, ",")
		if piece = strings.Trim(piece, " \t"); piece == "" {
			continue
		}
		if pieces++; pieces > most {
			return nil, false
		}
		s, ok := parsePiece(piece, size)
		if !ok {
			return nil, false
		}
		if s.from >= s.to {
			continue
		}
		if total += s.to - s.from; total > size {
			return nil, false
		}
		spans = append(spans, s)
	}
	return spans, pieces > 0
}

// parsePiece reads "from-to", "from-" or "-last"; an empty span is not there.
func parsePiece(piece string, size int64) (span, bool) {
	first, last, ok := strings.Cut(piece, "-")
	first, last = strings.Trim(first, " \t"), strings.Trim(last, " \t")
	if !ok || first == "" && last == "" {
		return span{}, false
	}
	if first == "" {
		n, ok := digits(last)
		return span{size - min(n, size), size}, ok
	}
	from, ok := digits(first)
	if !ok {
		return span{}, false
	}
	to := int64(math.MaxInt64)
	if last != "" {
		if to, ok = digits(last); !ok || to < from {
			return span{}, false
		}
	}
	return span{min(from, size), min(to, size-1) + 1}, true
}

// digits reads a number of any length; a huge one is the largest there is.
func digits(s string) (int64, bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, s != ""
	}
	return n, true
}
