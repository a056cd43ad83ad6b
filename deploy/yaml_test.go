package deploy_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The files here keep to a part of YAML that reads the same in every version of
// it: block mappings and lists, flow lists of scalars on one line, plain and
// double-quoted scalars, whole-line comments. parseYAML refuses all else, so a
// file that passes has one meaning.

type yamlLine struct {
	number, indent int
	text           string
}

var (
	yamlKey   = regexp.MustCompile(`^([A-Za-z0-9_./-]+):(?: (.+))?$`)
	yamlPlain = regexp.MustCompile(`^[A-Za-z0-9_./$][^#"'\[\]]*$`)
)

// parseYAML returns maps, lists and strings.
func parseYAML(text string) (any, error) {
	var lines []yamlLine
	for i, l := range strings.Split(text, "\n") {
		body := strings.TrimLeft(l, " ")
		if body == "" || strings.HasPrefix(body, "#") {
			continue
		}
		if strings.ContainsRune(l, '\t') || strings.TrimRight(l, " ") != l {
			return nil, fmt.Errorf("line %d: a tab or a space at the end", i+1)
		}
		lines = append(lines, yamlLine{i + 1, len(l) - len(body), body})
	}
	if len(lines) == 0 {
		return nil, errors.New("empty")
	}
	v, rest, err := parseBlock(lines)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("line %d: wrong indentation", rest[0].number)
	}
	return v, err
}

func parseBlock(lines []yamlLine) (any, []yamlLine, error) {
	if strings.HasPrefix(lines[0].text, "- ") {
		return parseList(lines)
	}
	return parseMap(lines)
}

func parseMap(lines []yamlLine) (any, []yamlLine, error) {
	m, indent := map[string]any{}, lines[0].indent
	for len(lines) > 0 && lines[0].indent == indent && !strings.HasPrefix(lines[0].text, "- ") {
		l := lines[0]
		parts := yamlKey.FindStringSubmatch(l.text)
		if parts == nil {
			return nil, nil, fmt.Errorf("line %d: not a key", l.number)
		}
		if _, twice := m[parts[1]]; twice {
			return nil, nil, fmt.Errorf("line %d: %s is there twice", l.number, parts[1])
		}
		lines = lines[1:]
		var v any
		var err error
		switch {
		case parts[2] != "":
			v, err = parseScalar(parts[2])
		case len(lines) > 0 && lines[0].indent > indent:
			v, lines, err = parseBlock(lines)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %s: %w", l.number, parts[1], err)
		}
		m[parts[1]] = v
	}
	return m, lines, nil
}

func parseList(lines []yamlLine) (any, []yamlLine, error) {
	list, indent := []any{}, lines[0].indent
	for len(lines) > 0 && lines[0].indent == indent && strings.HasPrefix(lines[0].text, "- ") {
		l := lines[0]
		item := strings.TrimPrefix(l.text, "- ")
		if yamlKey.MatchString(item) {
			// "- key: value" is a mapping whose first line begins after the dash.
			lines[0] = yamlLine{l.number, indent + 2, item}
			v, rest, err := parseMap(lines)
			if err != nil {
				return nil, nil, err
			}
			list, lines = append(list, v), rest
			continue
		}
		v, err := parseScalar(item)
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", l.number, err)
		}
		list, lines = append(list, v), lines[1:]
	}
	return list, lines, nil
}

func parseScalar(s string) (any, error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return nil, fmt.Errorf("%s: a flow list ends on its own line", s)
		}
		var list []any
		for item := range strings.SplitSeq(inner, ", ") {
			v, err := parseScalar(item)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	if inner, ok := strings.CutPrefix(s, `"`); ok {
		inner, ok = strings.CutSuffix(inner, `"`)
		if !ok || strings.ContainsAny(inner, `"\`) {
			return nil, fmt.Errorf("%s: quoted text without escapes is expected", s)
		}
		return inner, nil
	}
	switch strings.ToLower(s) {
	case "yes", "no", "on", "off", "y", "n":
		return nil, fmt.Errorf("%s: a word that some versions of YAML take for a truth value needs quotes", s)
	}
	if !yamlPlain.MatchString(s) || strings.Contains(s, ": ") {
		return nil, fmt.Errorf("%s: needs quotes", s)
	}
	return s, nil
}

func TestTheYAMLReaderReadsItsPartAndRefusesTheRest(t *testing.T) {
	got, err := parseYAML("a: 1\nb:\n  - x\n  - c: \"y: z\"\n    d: [p, \"q\"]\ne:\nf: ${X:?set X}\n")
	want := map[string]any{
		"a": "1", "e": nil, "f": "${X:?set X}",
		"b": []any{"x", map[string]any{"c": "y: z", "d": []any{"p", "q"}}},
	}
	if d := cmp.Diff(any(want), got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	for name, text := range map[string]string{
		"a tab":                   "a:\n\tb: 1\n",
		"a key twice":             "a: 1\na: 2\n",
		"a stray indentation":     "a: 1\n   b: 2\n",
		"an unquoted truth value": "a: off\n",
		"a flow mapping":          "a: {b: 1}\n",
		"an anchor":               "a: &x 1\n",
		"an open quote":           "a: \"b\n",
		"nothing":                 "# only a comment\n",
	} {
		if v, err := parseYAML(text); err == nil {
			t.Errorf("%s was read as %v", name, v)
		}
	}
}
