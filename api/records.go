package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/audit"
)

// AuditLog is what the API needs to show the audit log.
type AuditLog interface {
	NoteWriter
	Audit(ctx context.Context, q audit.Query) ([]audit.Record, error)
}

type auditActor struct {
	Kind    string `json:"kind" enum:"user,key,device,anonymous,system"`
	ID      string `json:"id" doc:"Of the user, key, session or device; empty when unknown"`
	Name    string `json:"name" doc:"As it was then"`
	Address string `json:"address" doc:"Where the request came from"`
	Request string `json:"request" doc:"Id of the request, as in the server's log"`
}

type auditRecord struct {
	Seq    int64           `json:"seq" doc:"Its place in the log, from 1, without a gap"`
	At     string          `json:"at" format:"date-time"`
	Actor  auditActor      `json:"actor"`
	Action string          `json:"action" example:"device.update"`
	Object string          `json:"object" doc:"The path of the thing in the API" example:"devices/d1"`
	Before json.RawMessage `json:"before" doc:"The thing before, null when there was none; without secrets"`
	After  json.RawMessage `json:"after" doc:"The thing after, null when there is none"`
}

func auditRecordOf(r audit.Record) auditRecord {
	return auditRecord{
		Seq: r.Seq, At: stamp(r.At), Actor: auditActor(r.Actor), Action: r.Action, Object: r.Object, Before: r.Before, After: r.After,
	}
}

type auditInput struct {
	Actor  string    `query:"actor" maxLength:"128" doc:"Id of who made the change"`
	Object string    `query:"object" maxLength:"512" doc:"A thing and all below it: devices/d1"`
	Action string    `query:"action" maxLength:"64" doc:"As records have it; behind a ! all others"`
	From   time.Time `query:"from" doc:"Changes at this time or later"`
	To     time.Time `query:"to" doc:"Changes before this time"`
	Limit  int       `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Cursor string    `query:"cursor" maxLength:"32" doc:"Of the page before"`
}

func (a *API) auditRoutes() {
	route(a, accounts.Admin, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/audit", Tags: []string{"audit"}, Summary: "Who changed what, newest first",
		Description: "Every change made over the API, by the console's links or by Muster itself, in the order in which they were committed. " +
			"The log is append-only and sealed every second; muster doctor finds what was tampered with.",
	}, a.listAudit)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "get-audit-record", Method: http.MethodGet, Path: "/audit/{seq}", Tags: []string{"audit"}, Summary: "Get one change",
		Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		Seq int64 `path:"seq" minimum:"1"`
	},
	) (*body[auditRecord], error) {
		found, err := a.Audit.Audit(ctx, audit.Query{Before: in.Seq + 1, Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(found) == 0 || found[0].Seq != in.Seq {
			return nil, muster.Errorf(muster.NotFound, "there is no such record")
		}
		return &body[auditRecord]{auditRecordOf(found[0])}, nil
	})
}

func (a *API) listAudit(ctx context.Context, in *auditInput) (*body[page[auditRecord]], error) {
	if strings.IndexByte(in.Actor+in.Object+in.Action, 0) >= 0 { // PostgreSQL can not even be asked for it
		return lone([]auditRecord{}), nil
	}
	q := audit.Query{Actor: in.Actor, Object: in.Object, Action: in.Action, Limit: in.Limit + 1}
	if !in.From.IsZero() {
		q.From = muster.MicrosOf(in.From)
	}
	if !in.To.IsZero() {
		q.To = muster.MicrosOf(in.To)
	}
	if in.Cursor != "" {
		before, err := strconv.ParseInt(in.Cursor, 10, 64)
		if err != nil || before < 1 {
			return nil, errCursor()
		}
		q.Before = before
	}
	found, err := a.Audit.Audit(ctx, q)
	if err != nil {
		return nil, err
	}
	next := ""
	if len(found) > in.Limit {
		found = found[:in.Limit]
		next = strconv.FormatInt(found[in.Limit-1].Seq, 10)
	}
	items := make([]auditRecord, len(found))
	for i, r := range found {
		items[i] = auditRecordOf(r)
	}
	return list(items, next), nil
}
