package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/alecthomas/kong"

	"muster"
)

// configFile resolves flags from a JSON object whose keys are flag names.
type configFile map[string]any

// loadConfig reads a configuration file of at most 1 MiB.
func loadConfig(r io.Reader) (kong.Resolver, error) {
	var c configFile
	dec := json.NewDecoder(io.LimitReader(r, 1<<20))
	dec.UseNumber()
	if err := dec.Decode(&c); err != nil {
		return nil, muster.Errorf(muster.Invalid, "the configuration file is not a JSON object: %w", err)
	}
	return c, nil
}

// Validate refuses keys that no flag has.
func (c configFile) Validate(app *kong.Application) error {
	known := map[string]bool{}
	_ = kong.Visit(app, func(n kong.Visitable, next kong.Next) error {
		if f, ok := n.(*kong.Flag); ok {
			known[f.Name] = true
		}
		return next(nil)
	})
	for _, k := range slices.Sorted(maps.Keys(c)) {
		if !known[k] {
			return muster.Errorf(muster.Invalid, "the configuration file has the key %q, which is no flag", k)
		}
	}
	return nil
}

// Resolve gives a flag its value from the file.
func (c configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	v, ok := c[flag.Name]
	if !ok {
		return nil, nil
	}
	switch v := v.(type) {
	case json.Number:
		return v.String(), nil
	case string, bool:
		return v, nil
	}
	return nil, fmt.Errorf("the configuration file's %q is not a string, number or boolean", flag.Name)
}
