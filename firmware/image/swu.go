package image

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// A .swu file is a cpio archive ("new ASCII", with or without checksums: cpio(5)) whose first
// member is sw-description, in libconfig's syntax.
const (
	cpioHeader  = 110
	cpioNewc    = "070701"
	cpioCRC     = "070702"
	swuFirst    = "sw-description"
	swuSigned   = "sw-description.sig"
	swuMostDesc = 32 << 10
)

func swu(head, _ []byte, _ int64) (Info, bool) {
	name, body, rest, ok := member(head)
	if !ok || name != swuFirst || len(body) > swuMostDesc {
		return Info{}, false
	}
	info := Info{Format: SWU, Version: swuText(body, "version")}
	if m := swuHardware().FindSubmatch(body); m != nil {
		for part := range strings.SplitSeq(string(m[1]), ",") {
			if rev := text(strings.Trim(part, " \t\r\n\"")); rev != "" && len(info.Hardware) < maxHardware {
				info.Hardware = append(info.Hardware, rev)
			}
		}
	}
	next, _, _, ok := member(rest)
	info.Signed = ok && next == swuSigned
	return info, true
}

func swuHardware() *regexp.Regexp {
	return regexp.MustCompile(`hardware-compatibility\s*[:=]\s*\[([^\]]{0,1000})\]`)
}

// swuText returns the first value of a name.
func swuText(b []byte, name string) string {
	m := regexp.MustCompile(`(?:^|[\s{;])` + name + `\s*[:=]\s*"([^"\n]{0,128})"`).FindSubmatch(b)
	if m == nil {
		return ""
	}
	return text(string(m[1]))
}

// member reads the first member of a cpio archive; contents that are not all there count as
// far as they are.
func member(b []byte) (name string, body, rest []byte, ok bool) {
	if len(b) < cpioHeader || string(b[:6]) != cpioNewc && string(b[:6]) != cpioCRC {
		return "", nil, nil, false
	}
	size, err := strconv.ParseUint(string(b[54:62]), 16, 32)
	nameSize, err2 := strconv.ParseUint(string(b[94:102]), 16, 32)
	if err != nil || err2 != nil || nameSize == 0 || nameSize > 4096 || cpioHeader+nameSize > uint64(len(b)) {
		return "", nil, nil, false
	}
	raw := b[cpioHeader : cpioHeader+nameSize]
	name = string(bytes.TrimRight(raw, "\x00"))
	from := min(even(cpioHeader+nameSize), uint64(len(b)))
	to := min(from+size, uint64(len(b)))
	return name, b[from:to], b[min(even(from+size), uint64(len(b))):], true
}

// even is the next multiple of four.
func even(n uint64) uint64 { return (n + 3) &^ 3 }
