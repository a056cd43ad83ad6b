package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/devices"
	"muster/devices/bulk"
	"muster/tasks"
)

// The kinds of tasks that do what devices:import and the like do at once otherwise.
const (
	ImportKind = "devices.import"
	ExportKind = "devices.export"
	UpdateKind = "devices.update"
	DeleteKind = "devices.delete"
)

// BulkImport is the input of a task of kind devices.import; the list is its file.
type BulkImport struct {
	Format  bulk.Format `json:"format"`
	Update  bool        `json:"update,omitempty"`
	Partial bool        `json:"partial,omitempty"`
}

// BulkExport is the input of a task of kind devices.export.
type BulkExport struct {
	Q      string      `json:"q,omitempty"` // all when empty
	Format bulk.Format `json:"format,omitempty"`
}

// BulkDelete is the input of a task of kind devices.delete; the ids are its file, one on
// each line. So they are of devices.update, whose input is a BulkChange.
type BulkDelete struct {
	Data devices.Data `json:"data"`
}

func (a *API) importTask(hc huma.Context, op *huma.Operation, o bulk.Options) {
	a.accepted(hc, op, func(ctx context.Context, owner tasks.Owner) (tasks.Task, error) {
		input, err := json.Marshal(BulkImport{o.Format, o.Update, o.Partial})
		if err != nil {
			return tasks.Task{}, muster.Errorf(muster.Internal, "write the input of an import: %w", err)
		}
		r, w := humago.Unwrap(hc)
		list, _ := listOf(w, r)
		t, err := a.Tasks.StartWith(ctx, ImportKind, input, owner, a.writing(ctx).reader(list))
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			err = muster.Errorf(muster.TooLarge, "the list is larger than %d bytes", maxImport)
		}
		return t, err
	})
}

func (a *API) exportTask(hc huma.Context, op *huma.Operation, in *exportInput) {
	a.accepted(hc, op, func(ctx context.Context, owner tasks.Owner) (tasks.Task, error) {
		input, err := json.Marshal(BulkExport{in.Q, bulk.Format(in.Format)})
		if err != nil {
			return tasks.Task{}, muster.Errorf(muster.Internal, "write the input of an export: %w", err)
		}
		return a.Tasks.Start(ctx, ExportKind, input, owner)
	})
}

// countedTask starts the task that changes or deletes ids.
func (a *API) countedTask(ctx context.Context, kind string, input any, ids []muster.DeviceID, out counted) (*countedAnswer, error) {
	text, err := json.Marshal(input)
	if err != nil {
		return nil, muster.Errorf(muster.Internal, "write the input of a task: %w", err)
	}
	var list bytes.Buffer
	for _, id := range ids {
		list.WriteString(string(id))
		list.WriteByte('\n')
	}
	t, err := a.Tasks.StartWith(ctx, kind, text, ownerOf(requestOf(ctx)), &list)
	if err != nil {
		return nil, err
	}
	shown := TaskOf(&t)
	out.Task = &shown
	return &countedAnswer{http.StatusAccepted, taskPath(t.ID), applied, out}, nil
}

// documentCountedTask adds 202 to the answers of op.
func (a *API) documentCountedTask(op *huma.Operation) {
	a.documentAccepted(op)
	op.Responses["202"].Content["application/json"].Schema = a.huma.OpenAPI().Components.Schemas.Schema(typeOf[counted](), true, "Counted")
}
