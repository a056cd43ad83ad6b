package coding

import (
	"strconv"
	"strings"
)

// The codings.
const (
	Zstd = "zstd"
	Gzip = "gzip"
)

// Choose returns the coding for an answer by an Accept-Encoding header (RFC 9110, section 12.5.3): zstd, gzip, or
// empty for none. Of two that are wanted alike it is zstd; what is not named is not used.
func Choose(accept string) string {
	if accept == "" {
		return ""
	}
	best, weight := "", 0.0
	anything := -1.0
	named := map[string]bool{}
	for part := range strings.SplitSeq(accept, ",") {
		name, q := cut(part)
		named[name] = true
		switch {
		case name == "*":
			anything = q
		case (name == Zstd || name == Gzip) && (q > weight || q == weight && q > 0 && name == Zstd):
			best, weight = name, q
		}
	}
	if best == "" && anything > 0 {
		for _, name := range []string{Zstd, Gzip} {
			if !named[name] {
				return name
			}
		}
	}
	return best
}

// cut returns a coding and its weight; one that is no number from 0 to 1 is 0.
func cut(part string) (name string, q float64) {
	name, params, _ := strings.Cut(part, ";")
	name, q = strings.ToLower(strings.TrimSpace(name)), 1
	if name == "x-gzip" {
		name = Gzip
	}
	for p := range strings.SplitSeq(params, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(k, "q") {
			continue
		}
		var err error
		if q, err = strconv.ParseFloat(v, 64); err != nil || !(q >= 0 && q <= 1) {
			q = 0
		}
	}
	return name, q
}
