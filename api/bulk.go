package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
	"muster/api/coding"
	"muster/audit"
	"muster/devices"
	"muster/devices/bulk"
	"muster/devices/query"
)

const (
	maxImport = 256 << 20 // bytes of a list of devices
	bulkBatch = 5000      // devices changed or deleted in one transaction
)

// BulkKeeper makes, changes and deletes many devices.
type BulkKeeper interface {
	bulk.Registry
	MatchAll(e *query.Expr) []muster.DeviceID
}

type importInput struct {
	Async
	ContentType string `header:"Content-Type" doc:"text/csv, or application/x-ndjson"`
	DryRun      bool   `query:"dry_run" doc:"Check everything and change nothing"`
	Update      bool   `query:"update" doc:"Change devices that exist; without it their lines are refused"`
	Partial     bool   `query:"partial" doc:"Make what can be made when lines are refused; without it one refused line leaves everything as it is"`
}

type exportInput struct {
	Async
	Q      string `query:"q" maxLength:"2048" doc:"Which devices, in the query language; all when absent"`
	Format string `query:"format" default:"csv" enum:"csv,ndjson"`
	// Columns make a table of it, which no import takes.
	Sort    string `query:"sort" maxLength:"256" doc:"The order of a table: id, name, profile, firmware, status, seen, created or v.KEY, with a - for the largest first"`
	Columns string `query:"columns" maxLength:"8192" doc:"Comma-separated columns of a table for people, of format csv: id, name, profile, parent, firmware, status, reason, seen, created, groups, tags, notes, tag:KEY, v.KEY. Such a table is answered at once, and not taken by devices:import"`
}

// Chosen says which devices a bulk action is about. It is exported because huma looks
// into exported embedded fields only.
type Chosen struct {
	Q      *string  `json:"q,omitempty" maxLength:"2048" nullable:"false" doc:"A query; give it or ids"`
	IDs    []string `json:"ids,omitempty" maxItems:"1000" nullable:"false" doc:"Their ids; give them or q"`
	DryRun bool     `json:"dry_run,omitempty" doc:"Only count"`
	Expect *int     `json:"expect,omitempty" minimum:"0" maximum:"1000000000" nullable:"false" doc:"How many devices the caller saw: the action is refused when there are more or fewer. Needed with q unless dry_run"`
}

// counted is what a bulk action did, or would do.
type counted struct {
	DryRun  bool `json:"dry_run"`
	Matched int  `json:"matched" doc:"How many devices the action is about"`
	Changed int  `json:"changed" doc:"How many it changed; 0 in a dry run"`
	// Task is there instead of the changes when Prefer asked for it.
	Task *TaskBody `json:"task,omitempty" doc:"The task that does it, when Prefer asked for one"`
}

// countedAnswer is 200 with what was done, or 202 with the task that does it.
type countedAnswer struct {
	Status   int
	Location string `header:"Location"`
	Applied  string `header:"Preference-Applied"`
	Body     counted
}

// BulkChange says what of many devices is to be another. It is exported because huma
// looks into exported embedded fields only, and is the input of the task that does it.
type BulkChange struct {
	Profile    *string            `json:"profile,omitempty" maxLength:"64" nullable:"false" doc:"Name of a profile that exists; empty for default"`
	Parent     *string            `json:"parent,omitempty" maxLength:"128" nullable:"false" doc:"Id of the gateway, empty for none"`
	Tags       map[string]*string `json:"tags,omitempty" nullable:"false" doc:"Tags to set; null takes one away, others stay"`
	AddGroups  []string           `json:"add_groups,omitempty" maxItems:"32" nullable:"false" doc:"Static groups to put them into"`
	DropGroups []string           `json:"drop_groups,omitempty" maxItems:"32" nullable:"false" doc:"Static groups to take them out of"`
	CheckInS   *int64             `json:"check_in_s,omitempty" minimum:"0" maximum:"31622400" nullable:"false"`
}

// Change returns what b changes of a device.
func (b *BulkChange) Change() (devices.Change, error) {
	c := devices.Change{Profile: b.Profile, AddGroups: b.AddGroups, DropGroups: b.DropGroups}
	if b.Parent != nil {
		parent := muster.DeviceID(*b.Parent)
		c.Parent = &parent
	}
	labels := ChangedLabels{Tags: b.Tags, CheckInS: b.CheckInS}
	err := labels.write(&c)
	return c, err
}

type bulkUpdate struct {
	Chosen
	BulkChange
}

type bulkDelete struct {
	Chosen
	Data string `json:"data,omitempty" maxLength:"16" nullable:"false" doc:"keep or delete, as at DELETE /devices/{device}; needed unless dry_run"`
}

func (a *API) bulkRoutes() {
	a.importRoute()
	a.exportRoute()
	tags := []string{"devices"}
	update := huma.Operation{
		OperationID: "update-devices", Method: http.MethodPost, Path: "/devices:update", Tags: tags,
		Summary:     "Change many devices",
		Description: "Count first, with dry_run; then send the count as expect. Batches of 5,000 devices are each changed whole or not at all.",
		Errors:      []int{404, 409},
	}
	a.documentCountedTask(&update)
	routeSlow(a, accounts.DevicesWrite, update, a.updateDevices)
	remove := huma.Operation{
		OperationID: "delete-devices", Method: http.MethodPost, Path: "/devices:delete", Tags: tags,
		Summary: "Delete many devices",
		Description: "Count first, with dry_run; then send the count as expect, and what becomes of their telemetry as data. " +
			"Batches of 5,000 devices are each deleted whole or not at all.",
		Errors: []int{404, 409},
	}
	a.documentCountedTask(&remove)
	routeSlow(a, accounts.DevicesWrite, remove, a.deleteDevices)
}

// routeSlow is route for what may take minutes.
func routeSlow[I, O any](a *API, scope string, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	a.routeFor(exportTime, scope, &op)
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, a.problem(requestOf(ctx), err)
		}
		a.recorded(ctx, &op)
		return out, nil
	})
}

// matching returns the devices that match q.
func (a *API) matching(ctx context.Context, q string) ([]muster.DeviceID, error) {
	e, err := a.Registry.Compile(q)
	if err != nil {
		return nil, muster.At(err, "q")
	}
	return a.registry(ctx).MatchAll(e), nil
}

// choose returns the devices that c is about.
func (a *API) choose(ctx context.Context, c *Chosen) ([]muster.DeviceID, error) {
	switch {
	case (c.Q == nil) == (len(c.IDs) == 0):
		return nil, muster.At(muster.Errorf(muster.Invalid, "give either q or ids"), "q", "ids")
	case c.Q != nil && c.Expect == nil && !c.DryRun:
		return nil, muster.At(muster.Errorf(muster.Invalid, "count first, with dry_run, and send the count as expect"), "expect", "dry_run", "q")
	}
	var ids []muster.DeviceID
	if c.Q != nil {
		var err error
		if ids, err = a.matching(ctx, *c.Q); err != nil {
			return nil, err
		}
	}
	named, err := a.named(ctx, c.IDs)
	if err != nil {
		return nil, err
	}
	ids = append(ids, named...)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if c.Expect != nil && *c.Expect != len(ids) {
		return nil, muster.Errorf(muster.Conflict, "%d devices match now, %d were expected: nothing was changed", len(ids), *c.Expect)
	}
	return ids, nil
}

// named returns the devices with these ids, which there are.
func (a *API) named(ctx context.Context, texts []string) ([]muster.DeviceID, error) {
	ids := make([]muster.DeviceID, 0, len(texts))
	for i, text := range texts {
		id, err := muster.ParseDeviceID(text)
		if err != nil {
			return nil, muster.At(err, fmt.Sprintf("ids/%d", i))
		}
		if _, err := a.registry(ctx).Get(id); err != nil {
			return nil, muster.At(muster.Errorf(muster.NotFound, "there is no device with the id at %d of ids", i), fmt.Sprintf("ids/%d", i))
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// ofDevice says of which device err is, and keeps what of the change it is about.
func ofDevice(id muster.DeviceID, err error) error {
	out := muster.Errorf(muster.KindOf(err), "device %s: %s", id, muster.Public(err))
	fields := slices.Clone(muster.FieldsOf(err))
	for i, f := range fields {
		if f == "groups" { // they come by no other member
			fields[i] = "add_groups"
		}
	}
	if len(fields) > 0 {
		return muster.At(out, fields...)
	}
	return out
}

func (a *API) updateDevices(ctx context.Context, in *struct {
	Async
	Body bulkUpdate
},
) (*countedAnswer, error) {
	b := &in.Body
	ids, err := a.choose(ctx, &b.Chosen)
	if err != nil {
		return nil, err
	}
	c, err := b.Change()
	if err != nil {
		return nil, err
	}
	out := counted{DryRun: b.DryRun, Matched: len(ids)}
	for _, id := range ids { // all before the first is changed
		if err := a.registry(ctx).CheckChange(id, c, nil); err != nil {
			return nil, ofDevice(id, err)
		}
	}
	if b.DryRun {
		audit.Nothing(ctx)
		return &countedAnswer{Status: http.StatusOK, Body: out}, nil
	}
	if a.async(ctx) {
		return a.countedTask(ctx, UpdateKind, b.BulkChange, ids, out)
	}
	still := a.writing(ctx)
	for part := range slices.Chunk(ids, bulkBatch) {
		if err := still.now(); err != nil {
			return nil, err
		}
		changes := make([]devices.DeviceChange, len(part))
		before := make([]devices.Device, len(part))
		for i, id := range part {
			changes[i] = devices.DeviceChange{ID: id, Change: c}
			before[i], _ = a.Registry.Get(id) // one that is gone is refused below
		}
		after, err := a.registry(ctx).UpdateMany(ctx, changes)
		if err != nil {
			return nil, err
		}
		for i := range after {
			if after[i] != before[i] {
				out.Changed++
			}
		}
	}
	return &countedAnswer{Status: http.StatusOK, Body: out}, nil
}

func (a *API) deleteDevices(ctx context.Context, in *struct {
	Async
	Body bulkDelete
},
) (*countedAnswer, error) {
	data, err := devices.ParseData(in.Body.Data)
	if err != nil && (in.Body.Data != "" || !in.Body.DryRun) {
		return nil, err
	}
	ids, err := a.choose(ctx, &in.Body.Chosen)
	if err != nil {
		return nil, err
	}
	out := counted{DryRun: in.Body.DryRun, Matched: len(ids)}
	if in.Body.DryRun {
		audit.Nothing(ctx)
		return &countedAnswer{Status: http.StatusOK, Body: out}, nil
	}
	if a.async(ctx) {
		return a.countedTask(ctx, DeleteKind, BulkDelete{Data: data}, ids, out)
	}
	still := a.writing(ctx)
	for part := range slices.Chunk(ids, bulkBatch) {
		if err := still.now(); err != nil {
			return nil, err
		}
		if err := a.registry(ctx).DeleteMany(ctx, part, data); err != nil {
			return nil, err
		}
		out.Changed += len(part)
	}
	return &countedAnswer{Status: http.StatusOK, Body: out}, nil
}

func (a *API) importRoute() {
	text := &huma.Schema{Type: "string"}
	op := huma.Operation{
		OperationID: "import-devices", Method: http.MethodPost, Path: "/devices:import", Tags: []string{"devices"}, Metadata: map[string]any{streamed: true},
		Summary: "Make and change devices from a list",
		Description: "The body is a list as devices:export writes it, up to 256 MiB and 1,000,000 devices. All lines are checked before the first " +
			"device is made. The answer is NDJSON: a line {\"made\":...} for each new device with its credential, which is shown this once, " +
			"{\"progress\":...} now and then, and at the end {\"report\":...} or {\"error\":...}.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"text/csv": {Schema: text}, "application/x-ndjson": {Schema: text},
		}},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"application/x-ndjson": {Schema: &huma.Schema{Type: "string", Description: "made, progress, and report or error"}},
		}}},
	}
	a.documentAccepted(&op)
	a.routeFor(exportTime, accounts.DevicesWrite, &op)
	huma.Register(a.huma, op, func(ctx context.Context, in *importInput) (*huma.StreamResponse, error) {
		format, err := formatOf(in.ContentType)
		if err != nil {
			return nil, err
		}
		o := bulk.Options{Format: format, DryRun: in.DryRun, Update: in.Update, Partial: in.Partial}
		if !in.DryRun && a.async(ctx) {
			return &huma.StreamResponse{Body: func(hc huma.Context) { a.importTask(hc, &op, o) }}, nil //nolint:contextcheck // hc has it
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { a.importStream(hc, o, &op) }}, nil //nolint:contextcheck // hc has it
	})
}

func formatOf(contentType string) (bulk.Format, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	switch {
	case err == nil && kind == "text/csv":
		return bulk.CSV, nil
	case err == nil && (kind == "application/x-ndjson" || kind == "application/ndjson"):
		return bulk.NDJSON, nil
	default:
		return "", newProblem(http.StatusUnsupportedMediaType, "the body is text/csv or application/x-ndjson")
	}
}

// importEvent is one line of the answer to an import; one of its parts is there.
type importEvent struct {
	Made     *importMade     `json:"made,omitempty"`
	Progress *importProgress `json:"progress,omitempty"`
	Report   *bulk.Report    `json:"report,omitempty"`
	Error    *Problem        `json:"error,omitempty"`
}

type importMade struct {
	Line       int             `json:"line"`
	ID         muster.DeviceID `json:"id"`
	Credential *issued         `json:"credential,omitempty"`
}

type importProgress struct {
	Done  int `json:"done"`
	Lines int `json:"lines"`
}

// importStream reads the request's body while it answers.
func (a *API) importStream(hc huma.Context, o bulk.Options, op *huma.Operation) {
	r, w := humago.Unwrap(hc)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 has it always
	out := json.NewEncoder(&patient{w})
	o.Made = func(line int, d devices.Device, is devices.Issued) error {
		return out.Encode(importEvent{Made: &importMade{line, d.ID, issuedOf(is)}}) //nolint:wrapcheck // the client is gone
	}
	o.Progress = func(done, lines int) {
		_ = out.Encode(importEvent{Progress: &importProgress{done, lines}}) // Made, or the end, tells that the client is gone
		_ = control.Flush()
	}
	in, list := listOf(w, r)
	still := a.writing(hc.Context())
	o.May = still.now
	report, err := bulk.Import(hc.Context(), a.registry(hc.Context()), still.reader(in), o)
	event := importEvent{Report: &report}
	if err != nil {
		event = importEvent{Error: a.importProblem(hc, err)}
	}
	if o.DryRun || err != nil && report.Created+report.Updated == 0 {
		audit.Nothing(hc.Context())
	}
	a.recorded(hc.Context(), op) // also when it broke off: some devices may be made
	_ = out.Encode(event)        // the client is gone: nobody is left to tell
	if list.broken {             // what is left of it may come at any time, and is no request
		_ = control.Flush()
		panic(http.ErrAbortHandler)
	}
	_ = control.Flush()
	readOut(coding.Raw(r.Body), control) // what a decoder refuses is read out as it comes
}

// listOf is the body of an import: one that stops coming holds no one, since each read
// has its own time.
func listOf(w http.ResponseWriter, r *http.Request) (io.Reader, *patientBody) {
	list := &patientBody{body: r.Body, control: http.NewResponseController(w)}
	return http.MaxBytesReader(w, list, maxImport), list
}

// readOut reads what is left of a body that was answered before its end, for a while: net/http
// panics when a connection in full duplex goes on with a body half read. One that does not
// end is cut.
func readOut(body io.Reader, control *http.ResponseController) {
	_ = control.SetReadDeadline(time.Now().Add(readStall)) // a test's recorder has none
	n, err := io.Copy(io.Discard, io.LimitReader(body, maxImport))
	if err != nil || n == maxImport {
		panic(http.ErrAbortHandler)
	}
}

func (a *API) importProblem(hc huma.Context, err error) *Problem {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		err = muster.Errorf(muster.TooLarge, "the list is larger than %d bytes", maxImport)
	}
	if coding.Refused(err) {
		err = bodyProblem(err, 0)
	}
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError && hc.Context().Err() == nil {
		a.logFault(requestOf(hc.Context()), err)
	}
	return p
}

// patient gives a client that takes what is written another while.
type patient struct{ w http.ResponseWriter }

func (p *patient) Write(b []byte) (int, error) {
	if err := send(p.w, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// readStall is how long the next bytes of a list may take.
const readStall = 30 * time.Second

type patientBody struct {
	body    interface{ Read(p []byte) (int, error) }
	control *http.ResponseController
	broken  bool // it did not come
}

func (p *patientBody) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(readStall)) // a test's recorder has none
	n, err := p.body.Read(b)
	switch {
	case errors.Is(err, io.EOF):
		_ = p.control.SetReadDeadline(time.Time{}) // or what follows would be cut by it
	case err != nil:
		p.broken = !coding.Refused(err)
	}
	return n, err //nolint:wrapcheck // a reader in the middle
}

func (p *patientBody) Close() error { return nil }

func (a *API) exportRoute() {
	op := huma.Operation{
		OperationID: "export-devices", Method: http.MethodGet, Path: "/devices:export", Tags: []string{"devices"},
		Summary: "Write devices as a list that devices:import takes",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"text/csv":             {Schema: &huma.Schema{Type: "string", Description: "A header line, then a device on each line"}},
			"application/x-ndjson": {Schema: &huma.Schema{Type: "string", Description: "A device on each line"}},
		}}},
	}
	a.documentAccepted(&op)
	a.routeFor(exportTime, accounts.DevicesRead, &op)
	huma.Register(a.huma, op, func(ctx context.Context, in *exportInput) (*huma.StreamResponse, error) {
		if in.Columns == "" && in.Sort == "" && a.async(ctx) {
			return &huma.StreamResponse{Body: func(hc huma.Context) { a.exportTask(hc, &op, in) }}, nil //nolint:contextcheck // hc has it
		}
		ids, err := a.exported(ctx, in)
		if err != nil {
			return nil, a.problem(requestOf(ctx), err)
		}
		if in.Columns != "" {
			t, err := a.tableOf(ctx, in)
			if err != nil {
				return nil, a.problem(requestOf(ctx), err)
			}
			return t.stream(ids), nil //nolint:contextcheck // hc has it
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { a.exportDevices(hc, ids, bulk.Format(in.Format)) }}, nil //nolint:contextcheck // hc has it
	})
}

// exported returns the devices of an export, those of a table in the order that is asked for.
func (a *API) exported(ctx context.Context, in *exportInput) ([]muster.DeviceID, error) {
	if in.Sort == "" {
		return a.matching(ctx, in.Q)
	}
	if in.Columns == "" {
		return nil, muster.InvalidAt("sort", "an order is chosen of a table only, with columns")
	}
	e, err := a.Registry.Compile(in.Q)
	if err != nil {
		return nil, muster.At(err, "q")
	}
	page, err := a.registry(ctx).Select(devices.Selection{Query: e, Sort: in.Sort, Limit: math.MaxInt})
	if err != nil {
		return nil, muster.At(err, "sort")
	}
	ids := make([]muster.DeviceID, len(page.Devices))
	for i, d := range page.Devices {
		ids[i] = d.ID
	}
	return ids, nil
}

func (a *API) exportDevices(hc huma.Context, ids []muster.DeviceID, f bulk.Format) {
	_, w := humago.Unwrap(hc)
	contentType := "application/x-ndjson"
	if f == bulk.CSV {
		contentType = "text/csv; charset=utf-8; header=present"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Disposition", `attachment; filename="devices.`+string(f)+`"`)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	if err := a.writeDevices(hc.Context(), &patient{w}, ids, f); err != nil {
		a.logFault(requestOf(hc.Context()), err)
		panic(http.ErrAbortHandler)
	}
}

func (a *API) writeDevices(ctx context.Context, out io.Writer, ids []muster.DeviceID, f bulk.Format) error {
	w, err := bulk.NewWriter(out, f)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := a.Registry.Get(id)
		if err != nil {
			continue // deleted meanwhile
		}
		p, _ := a.Registry.Presence(id)
		if err := w.Write(d, p); err != nil {
			return err
		}
	}
	return w.Flush()
}
