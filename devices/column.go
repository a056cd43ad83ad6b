package devices

import (
	"strings"

	"muster"
)

const (
	// MaxColumns is the most columns of a list of devices.
	MaxColumns = 32
	maxKey     = 256 // bytes of a telemetry key
)

// Column is a column of a list of devices, as people choose it.
type Column struct {
	Name string // as it was written: id, name, tag:KEY, v.KEY, spark.KEY ...
	Kind string // Name without the key: tag:, v. or spark.
	Key  string // of these
}

// The columns with a key.
const (
	TagColumn   = "tag:"   // the value of a tag
	ValueColumn = "v."     // the latest value of a telemetry key
	SparkColumn = "spark." // its small line
)

// ParseColumns reads the names of columns. Invalid when one is none, or comes twice, or
// there are more than MaxColumns.
func ParseColumns(names []string) ([]Column, error) {
	if len(names) > MaxColumns {
		return nil, muster.InvalidAt("columns", "there may be at most %d columns", MaxColumns)
	}
	out := make([]Column, 0, len(names))
	have := make(map[string]bool, len(names))
	for i, name := range names {
		c, ok := columnOf(name)
		switch {
		case !ok:
			return nil, muster.InvalidAt("columns", "column %d is none of id, name, profile, parent, firmware, status, reason, seen, created, groups, tags, notes, tag:KEY, v.KEY and spark.KEY", i+1)
		case have[name]:
			return nil, muster.InvalidAt("columns", "column %d is there already", i+1)
		}
		have[name] = true
		out = append(out, c)
	}
	return out, nil
}

func columnOf(name string) (Column, bool) {
	switch name {
	case "id", "name", "profile", "parent", "firmware", "status", "reason", "seen", "created", "groups", "tags", "notes":
		return Column{Name: name, Kind: name}, true
	}
	if key, ok := strings.CutPrefix(name, TagColumn); ok {
		return Column{name, TagColumn, key}, label(key)
	}
	for _, kind := range [...]string{ValueColumn, SparkColumn} {
		if key, ok := strings.CutPrefix(name, kind); ok {
			return Column{name, kind, key}, key != "" && len(key) <= maxKey && checkText("", key, maxKey) == nil
		}
	}
	return Column{}, false
}
