package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"time"

	"muster"
	"muster/accounts"
	"muster/api"
	"muster/devices"
	"muster/devices/bulk"
	"muster/tasks"
	"muster/tasks/identicon"
)

// The bounds of the kinds of tasks.
const (
	bulkTime     = time.Hour // for one import, change or deletion
	exportTime   = 30 * time.Minute
	pictureTime  = 30 * time.Second
	keepIssued   = time.Hour      // a result with credentials, and a picture
	keepReport   = 24 * time.Hour // a result without
	bulkQueue    = 8              // inputs of up to 256 MiB each
	pictureQueue = 64
)

// buildTasks makes the room of tasks and its kinds.
func (s *Server) buildTasks() error {
	s.tasks = tasks.New(tasks.Config{
		Store: s.stores.control, Loader: s.stores.control,
		May: func(o tasks.Owner, scope string) bool { return s.accounts.May(o.ID, scope) }, Dir: filepath.Join(s.cfg.DataDir, "tasks"), Now: s.cfg.Now, Logger: s.cfg.Logger,
	})
	j := bulkJobs{s.registry}
	kinds := []tasks.Kind{
		{
			Name: api.ImportKind, Summary: "Make and change devices from a list", Door: "POST /devices:import with Prefer: respond-async",
			Scope: accounts.DevicesWrite, Timeout: bulkTime, Concurrency: 1, Queue: bulkQueue, Durable: true,
			KeepResult: keepIssued, KeepPartial: true, Private: true, Run: j.imports,
		},
		{
			Name: api.ExportKind, Summary: "Write devices as a list: q is a query, format csv or ndjson",
			Scope: accounts.DevicesRead, Timeout: exportTime, Concurrency: 2, Queue: bulkQueue, Durable: true,
			KeepResult: keepReport, Check: j.checkExport, Run: j.exports,
		},
		{
			Name: api.UpdateKind, Summary: "Change many devices", Door: "POST /devices:update with Prefer: respond-async",
			Scope: accounts.DevicesWrite, Timeout: bulkTime, Concurrency: 1, Queue: bulkQueue, Durable: true,
			KeepResult: keepReport, Run: j.updates,
		},
		{
			Name: api.DeleteKind, Summary: "Delete many devices", Door: "POST /devices:delete with Prefer: respond-async",
			Scope: accounts.DevicesWrite, Timeout: bulkTime, Concurrency: 1, Queue: bulkQueue, Durable: true,
			KeepResult: keepReport, Run: j.deletes,
		},
		{
			Name: api.IdenticonKind, Summary: "Draw a picture that stands for subject, size pixels wide; the cost grows with the square of oversample",
			Scope: accounts.DevicesRead, Timeout: pictureTime, Concurrency: max(1, runtime.NumCPU()/2), Queue: pictureQueue,
			KeepResult: keepIssued, Check: checkIdenticon, Key: identiconKey, Run: drawIdenticon,
		},
	}
	for _, k := range kinds {
		if err := s.tasks.Register(k); err != nil {
			return fmt.Errorf("register the kinds of tasks: %w", err)
		}
	}
	if err := s.metrics.Register(s.tasks.Metrics()); err != nil {
		return fmt.Errorf("register the metrics of tasks: %w", err)
	}
	return nil
}

func checkIdenticon(input json.RawMessage) error {
	_, err := identicon.Parse(input)
	return err
}

// identiconKey is asked for checked inputs only.
func identiconKey(input json.RawMessage) string {
	spec, err := identicon.Parse(input)
	if err != nil {
		return ""
	}
	return spec.Key()
}

func drawIdenticon(ctx context.Context, r *tasks.Run) error {
	spec, err := identicon.Parse(r.Input)
	if err != nil {
		return err
	}
	out, err := r.Result("image/png")
	if err != nil {
		return err
	}
	return identicon.Draw(ctx, spec, out, func(done, total int64) { r.Progress(done, total, "drawing") })
}

// bulkJobs are the tasks on many devices.
type bulkJobs struct{ registry *devices.Registry }

// importKeeper keeps an import in its task.
type importKeeper struct {
	run *tasks.Run
	out *tasks.Output
}

// planName is what the plan of an import is kept under.
const planName = "plan"

// Plan implements bulk.Keeper.
func (k importKeeper) Plan() ([]byte, error) { return k.run.Recall(planName) }

// KeepPlan implements bulk.Keeper.
func (k importKeeper) KeepPlan(plan []byte) error { return k.run.Keep(planName, plan) }

// importedLine is a line of an import's result, as devices:import answers.
type importedLine struct {
	Made   *importedDevice `json:"made,omitempty"`
	Report *bulk.Report    `json:"report,omitempty"`
}

type importedDevice struct {
	Line       int             `json:"line"`
	ID         muster.DeviceID `json:"id"`
	Credential *credential     `json:"credential,omitempty"`
}

// credential is one that is handed out before it is made, when it has no id yet.
type credential struct {
	Kind     string `json:"kind"`
	Token    string `json:"token,omitempty"`
	Username string `json:"username"`
	Password string `json:"password,omitempty"`
}

// Step implements bulk.Keeper: the credentials are on disk before the devices are made.
func (k importKeeper) Step(ctx context.Context, m bulk.Mark, made []bulk.Made, do func(ctx context.Context) error) error {
	lines := bufio.NewWriter(k.out)
	enc := json.NewEncoder(lines)
	for _, d := range made {
		line := importedDevice{Line: d.Line, ID: d.ID}
		if c := d.Credential; c.Kind != "" {
			line.Credential = &credential{string(c.Kind), c.Token, c.Username, c.Password}
		}
		if err := enc.Encode(importedLine{Made: &line}); err != nil {
			return fmt.Errorf("write credentials: %w", err)
		}
	}
	if err := lines.Flush(); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	done := &m.Report
	planned := done.Lines - done.Refused + m.Done - done.Created - done.Updated - done.Same // without what the check refused
	return k.run.Step(ctx, int64(m.Done), int64(planned), m, do)
}

func (j bulkJobs) imports(ctx context.Context, r *tasks.Run) error {
	var in api.BulkImport
	if err := json.Unmarshal(r.Input, &in); err != nil {
		return fmt.Errorf("read the input of an import: %w", err)
	}
	from, err := bulk.Resume(r.Resume)
	if err != nil {
		return err
	}
	list, err := r.File()
	if err != nil {
		return err
	}
	defer list.Close()
	out, err := r.Result("application/x-ndjson")
	if err != nil {
		return err
	}
	r.Progress(int64(from.Done), 0, "reading the list")
	o := bulk.Options{Format: in.Format, Update: in.Update, Partial: in.Partial, Keeper: importKeeper{run: r, out: out}}
	report, err := bulk.ImportFrom(ctx, j.registry, list, o, from)
	if err != nil {
		return err
	}
	return writeJSON(out, importedLine{Report: &report})
}

func (j bulkJobs) checkExport(input json.RawMessage) error {
	_, err := j.export(input)
	return err
}

func (j bulkJobs) export(input json.RawMessage) (in api.BulkExport, err error) {
	if err := json.Unmarshal(input, &in); err != nil {
		return in, muster.Errorf(muster.Invalid, "the input of an export has q and format")
	}
	if in.Format == "" {
		in.Format = bulk.CSV
	}
	if in.Format != bulk.CSV && in.Format != bulk.NDJSON {
		return in, muster.Errorf(muster.Invalid, "the format is neither csv nor ndjson")
	}
	_, err = j.registry.Compile(in.Q)
	return in, err
}

// exports begins anew after a restart: a list is of one time.
func (j bulkJobs) exports(ctx context.Context, r *tasks.Run) error {
	in, err := j.export(r.Input)
	if err != nil {
		return err
	}
	e, err := j.registry.Compile(in.Q)
	if err != nil {
		return err
	}
	contentType := "application/x-ndjson"
	if in.Format == bulk.CSV {
		contentType = "text/csv; charset=utf-8; header=present"
	}
	out, err := r.Result(contentType)
	if err != nil {
		return err
	}
	w, err := bulk.NewWriter(out, in.Format)
	if err != nil {
		return err
	}
	ids := j.registry.MatchAll(e)
	for i, id := range ids {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("write devices: %w", err)
		}
		d, err := j.registry.Get(id)
		if err != nil {
			continue // deleted meanwhile
		}
		p, _ := j.registry.Presence(id)
		if err := w.Write(d, p); err != nil {
			return err
		}
		r.Progress(int64(i+1), int64(len(ids)), "writing")
	}
	return w.Flush()
}

func (j bulkJobs) updates(ctx context.Context, r *tasks.Run) error {
	var in api.BulkChange
	if err := json.Unmarshal(r.Input, &in); err != nil {
		return fmt.Errorf("read the input of a change: %w", err)
	}
	change, err := in.Change()
	if err != nil {
		return err
	}
	return act(r, func(ids []muster.DeviceID, from bulk.ActMark, steps bulk.Steps) (bulk.Acted, error) {
		return bulk.Update(ctx, j.registry, ids, change, from, steps)
	})
}

func (j bulkJobs) deletes(ctx context.Context, r *tasks.Run) error {
	var in api.BulkDelete
	if err := json.Unmarshal(r.Input, &in); err != nil {
		return fmt.Errorf("read the input of a deletion: %w", err)
	}
	return act(r, func(ids []muster.DeviceID, from bulk.ActMark, steps bulk.Steps) (bulk.Acted, error) {
		return bulk.Delete(ctx, j.registry, ids, in.Data, from, steps)
	})
}

// act does a bulk action on the ids that came with the task.
func act(r *tasks.Run, do func(ids []muster.DeviceID, from bulk.ActMark, steps bulk.Steps) (bulk.Acted, error)) error {
	ids, err := idsOf(r)
	if err != nil {
		return err
	}
	from, err := bulk.ResumeAct(r.Resume, ids)
	if err != nil {
		return err
	}
	report, err := do(ids, from, bulk.Steps{Do: func(ctx context.Context, m bulk.ActMark, do func(ctx context.Context) error) error {
		return r.Step(ctx, int64(m.Done), int64(len(ids)), m, do)
	}})
	if err != nil {
		return err
	}
	out, err := r.Result("application/json")
	if err != nil {
		return err
	}
	return writeJSON(out, report)
}

func idsOf(r *tasks.Run) (ids []muster.DeviceID, err error) {
	f, err := r.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		ids = append(ids, muster.DeviceID(lines.Text()))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the ids of a task: %w", err)
	}
	return ids, nil
}

func writeJSON(w io.Writer, v any) error {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		return fmt.Errorf("write a report: %w", err)
	}
	return nil
}

// The seam that is filled here.
var _ bulk.Keeper = importKeeper{}
