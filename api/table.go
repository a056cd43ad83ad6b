package api

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/devices/bulk"
	"muster/ingest"
)

// table writes devices with the columns that somebody chose: for people, and not for an
// import.
type table struct {
	api     *API
	columns []devices.Column
	values  bool // of telemetry are among them
}

func (a *API) tableOf(ctx context.Context, in *exportInput) (*table, error) {
	if in.Format != string(bulk.CSV) {
		return nil, muster.InvalidAt("columns", "columns are chosen of the format csv only")
	}
	columns, err := devices.ParseColumns(strings.Split(in.Columns, ","))
	if err != nil {
		return nil, err
	}
	t := &table{api: a, columns: columns}
	for _, c := range columns {
		t.values = t.values || c.Kind == devices.ValueColumn
		if c.Kind == devices.SparkColumn {
			return nil, muster.InvalidAt("columns", "a small line has no place in a table of text")
		}
	}
	if t.values && !requestOf(ctx).who.Allows(accounts.TelemetryRead) {
		return nil, muster.Errorf(muster.Forbidden, "columns of telemetry need the scope %s", accounts.TelemetryRead)
	}
	return t, nil
}

func (t *table) stream(ids []muster.DeviceID) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		ctx := hc.Context()
		_, w := humago.Unwrap(hc)
		h := w.Header()
		h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
		h.Set("Content-Disposition", `attachment; filename="devices.csv"`)
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
		if err := t.write(ctx, &patient{w}, ids); err != nil {
			t.api.logFault(requestOf(ctx), err)
			panic(http.ErrAbortHandler)
		}
	}}
}

func (t *table) write(ctx context.Context, out io.Writer, ids []muster.DeviceID) error {
	w := csv.NewWriter(out)
	cells := make([]string, len(t.columns))
	for i, c := range t.columns {
		cells[i] = bulk.Cell(c.Name)
	}
	if err := w.Write(cells); err != nil {
		return fmt.Errorf("write the header: %w", err)
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := t.api.Registry.Get(id)
		if err != nil {
			continue // deleted meanwhile
		}
		is, p, _ := t.api.Registry.Status(id)
		var latest ingest.LatestRow
		if t.values {
			latest, _ = t.api.Live.Latest(id)
		}
		for i := range t.columns {
			cells[i] = t.cell(&t.columns[i], d, is, p, latest.Values)
		}
		if err := w.Write(cells); err != nil {
			return fmt.Errorf("write a line: %w", err)
		}
	}
	w.Flush()
	return w.Error() //nolint:wrapcheck // the client is gone
}

func (t *table) cell(c *devices.Column, d devices.Device, is muster.Status, p muster.Presence, values []ingest.LatestValue) string {
	switch c.Kind {
	case "status":
		return string(is)
	case "seen":
		if p.LastSeen == 0 {
			return ""
		}
		return stamp(p.LastSeen)
	case "created":
		return stamp(d.Created)
	case devices.ValueColumn:
		return latestCell(values, c.Key)
	}
	return bulk.Cell(labelCell(c, d, p))
}

// labelCell is a cell that people wrote.
func labelCell(c *devices.Column, d devices.Device, p muster.Presence) string {
	switch c.Kind {
	case "id":
		return string(d.ID)
	case "name":
		return d.Name
	case "profile":
		return d.Profile
	case "parent":
		return string(d.Parent)
	case "firmware":
		return d.Firmware
	case "reason":
		return p.Reason
	case "groups":
		return strings.Join(d.Groups.Names(), ";")
	case "tags":
		return tagCell(d.Tags)
	case "notes":
		return d.Notes
	default:
		v, _ := d.Tags.Get(c.Key)
		return v
	}
}

func tagCell(t devices.Tags) string {
	all := t.Map()
	parts := make([]string, 0, len(all))
	for _, k := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, k+"="+all[k])
	}
	return strings.Join(parts, ";")
}

// latestCell is the newest value of a key: a number as it is, a JSON string as its text.
func latestCell(values []ingest.LatestValue, key string) string {
	var found *ingest.LatestValue
	for i := range values {
		v := &values[i]
		if v.Key.Name == key && (found == nil || min(v.Time, v.Arrival) > min(found.Time, found.Arrival)) {
			found = v
		}
	}
	switch {
	case found == nil:
		return ""
	case found.Key.Kind != muster.JSON:
		return string(ingest.AppendValue(nil, found.Value))
	}
	var text string
	if json.Unmarshal([]byte(found.Text), &text) == nil {
		return bulk.Cell(text)
	}
	return bulk.Cell(found.Text)
}
