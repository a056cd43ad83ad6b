package api

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
	"muster/devices/command"
)

// CommandSender sends commands to devices and calls them off.
type CommandSender interface {
	Send(ctx context.Context, s command.Spec, wait time.Duration) (command.Command, error)
	Cancel(ctx context.Context, device muster.DeviceID, id int64) (command.Command, error)
}

// CommandReader finds commands.
type CommandReader interface {
	Command(ctx context.Context, device muster.DeviceID, id int64) (command.Command, error)
	Commands(ctx context.Context, q command.Query) (page []command.Command, next int64, err error)
}

// Commands is what the API needs of *command.Commands.
type Commands interface {
	CommandSender
	CommandReader
	JobKeeper
	JobReader
}

// maxCommandBody is for 64 KiB of params, spaces and all.
const maxCommandBody = 192 << 10

type newCommand struct {
	Method string          `json:"method" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._/-]+$" doc:"What to do, as the device calls it"`
	Params json.RawMessage `json:"params,omitempty" doc:"Any JSON, at most 64 KiB; {} when absent"`
	TTLS   int             `json:"ttl_s,omitempty" minimum:"1" maximum:"2592000" doc:"Seconds until it expires unless it is finished; a day when absent"`
}

// commandBody is a command as it is shown.
type commandBody struct {
	ID          string          `json:"id" doc:"A decimal number"`
	Device      muster.DeviceID `json:"device"`
	Method      string          `json:"method"`
	Params      json.RawMessage `json:"params" doc:"Null when the job that it came from is deleted"`
	State       string          `json:"state" enum:"queued,sent,delivered,accepted,progress,succeeded,failed,expired,cancelled"`
	Progress    int             `json:"progress" minimum:"0" maximum:"100"`
	Attempts    int             `json:"attempts" doc:"How often it was handed to a connection"`
	Result      json.RawMessage `json:"result" doc:"What the device gave with its last report, null for nothing"`
	Error       json.RawMessage `json:"error" doc:"Likewise"`
	Job         string          `json:"job,omitempty" doc:"Id of the job that it came from"`
	CreatedBy   string          `json:"created_by"`
	CreatedAt   string          `json:"created_at" format:"date-time"`
	ExpiresAt   string          `json:"expires_at" format:"date-time"`
	SentAt      *string         `json:"sent_at" format:"date-time" doc:"The last time"`
	DeliveredAt *string         `json:"delivered_at" format:"date-time"`
	AcceptedAt  *string         `json:"accepted_at" format:"date-time"`
	ProgressAt  *string         `json:"progress_at" format:"date-time"`
	FinishedAt  *string         `json:"finished_at" format:"date-time"`
	Late        *lateReport     `json:"late,omitempty" doc:"What the device reported when the command had expired or was cancelled"`
}

type lateReport struct {
	At     string          `json:"at" format:"date-time"`
	Status string          `json:"status" enum:"accepted,progress,ok,error"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

func commandOf(c *command.Command) commandBody {
	out := commandBody{
		ID: command.FormatID(c.ID), Device: c.Device, Method: c.Method, Params: rawOrNull(c.Params), State: c.State.String(),
		Progress: c.Progress, Attempts: c.Attempts, Result: rawOrNull(c.Result), Error: rawOrNull(c.Error), Job: idOrEmpty(c.Job),
		CreatedBy: c.CreatedBy, CreatedAt: stamp(c.Created), ExpiresAt: stamp(c.Expires), SentAt: stampOrNull(c.Sent),
		DeliveredAt: stampOrNull(c.Delivered), AcceptedAt: stampOrNull(c.Accepted), ProgressAt: stampOrNull(c.Reported),
		FinishedAt: stampOrNull(c.Finished),
	}
	if l := c.Late; l != nil {
		out.Late = &lateReport{stamp(l.At), l.Status, rawOrNull(l.Result), rawOrNull(l.Error)}
	}
	return out
}

func rawOrNull(r json.RawMessage) json.RawMessage {
	if len(r) == 0 {
		return json.RawMessage("null")
	}
	return r
}

func idOrEmpty(id int64) string {
	if id == 0 {
		return ""
	}
	return command.FormatID(id)
}

// CommandPath is the part of an input that names a command. It is exported because huma
// looks into exported embedded fields only.
type CommandPath struct {
	DevicePath
	Command string `path:"command" maxLength:"64" doc:"The command's id"`
}

// Idempotent is the part of an input that makes a request safe to be sent again.
type Idempotent struct {
	Key string `header:"Idempotency-Key" maxLength:"256" doc:"The same key with the same body gives the same answer for 24 hours, and does nothing more"`
}

func (a *API) commandRoutes() {
	tags := []string{"commands"}
	send := huma.Operation{
		OperationID: "send-command", Metadata: map[string]any{ownKeys: true}, Method: http.MethodPost, Path: "/devices/{device}/commands", DefaultStatus: http.StatusCreated, Tags: tags,
		Summary: "Send a device a command",
		Description: "It is stored, and sent at once or when the device connects. With wait the answer comes when the command is finished, or " +
			"after the wait with the command as it stands.",
		Errors: []int{404, 409},
	}
	routeBig(a, requestTime+command.MaxWait, accounts.CommandsSend, send, a.sendCommand)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-commands", Method: http.MethodGet, Path: "/devices/{device}/commands", Tags: tags,
		Summary: "List a device's commands, newest first", Errors: []int{404},
	}, a.listCommands)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-command", Method: http.MethodGet, Path: "/devices/{device}/commands/{command}", Tags: tags,
		Summary: "Get a command", Errors: []int{404},
	}, func(ctx context.Context, in *CommandPath) (*body[commandBody], error) {
		return a.oneCommand(ctx, in, a.Commands.Command)
	})
	route(a, accounts.CommandsSend, huma.Operation{
		OperationID: "cancel-command", Method: http.MethodPost, Path: "/devices/{device}/commands/{command}/cancel", Tags: tags,
		Summary:     "Call a command off",
		Description: "One that is queued is never sent. A device that has it already is not told; what it reports is kept as late.",
		Errors:      []int{404, 409},
	}, func(ctx context.Context, in *CommandPath) (*body[commandBody], error) {
		return a.oneCommand(ctx, in, a.Commands.Cancel)
	})
}

// routeBig is route for bodies with params, and for answers that may take long.
func routeBig[I, O any](a *API, limit time.Duration, scope string, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	a.routeFor(limit, scope, &op)
	op.MaxBodyBytes = maxCommandBody
	op.Middlewares = append(huma.Middlewares{writeAfter(limit)}, op.Middlewares...)
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, a.problem(requestOf(ctx), err)
		}
		a.recorded(ctx, &op)
		return out, nil
	})
}

// writeAfter lets the answer be written after limit; the clock is the socket's.
func writeAfter(limit time.Duration) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		_, w := humago.Unwrap(ctx)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + writeStall)) // a recorder has none
		next(ctx)
	}
}

// commanded returns the device in the path. One that cannot exist is not found, like
// one that does not.
func (a *API) commanded(in DevicePath) (muster.DeviceID, error) {
	id, err := a.existing(in)
	if err != nil && muster.KindOf(err) == muster.Invalid {
		err = muster.Errorf(muster.NotFound, "there is no such device: %s", muster.Public(err))
	}
	return id, err
}

func (a *API) sendCommand(ctx context.Context, in *struct {
	DevicePath
	Idempotent
	Wait string `query:"wait" maxLength:"16" doc:"How long to wait for the end, such as 10s; at most 60s" example:"10s"`
	Body newCommand
},
) (*created[commandBody], error) {
	id, err := a.commanded(in.DevicePath)
	if err != nil {
		return nil, err
	}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	who := requestOf(ctx).who
	c, err := a.Commands.Send(ctx, command.Spec{
		Device: id, Method: in.Body.Method, Params: in.Body.Params, TTL: time.Duration(in.Body.TTLS) * time.Second,
		By: cmp.Or(who.User, who.ID), Key: in.Key,
	}, wait)
	if err != nil {
		return nil, err
	}
	return &created[commandBody]{prefix + "/devices/" + string(id) + "/commands/" + command.FormatID(c.ID), commandOf(&c)}, nil
}

// parseWait reads a duration of at most MaxWait, 0 for none.
func parseWait(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > command.MaxWait {
		return 0, muster.InvalidAt("wait", "wait is a duration of at most %s, such as 10s", command.MaxWait)
	}
	return d, nil
}

func (a *API) listCommands(ctx context.Context, in *struct {
	DevicePath
	State string `query:"state" enum:"queued,sent,delivered,accepted,progress,succeeded,failed,expired,cancelled,open,finished" doc:"Only those in this state; open is all before succeeded, finished the others"`
	Limit int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	After string `query:"after" maxLength:"64" doc:"The cursor of the page before"`
},
) (*body[page[commandBody]], error) {
	id, err := a.commanded(in.DevicePath)
	if err != nil {
		return nil, err
	}
	before, err := parseNumber(in.After)
	if err != nil {
		return nil, err
	}
	found, next, err := a.Commands.Commands(ctx, command.Query{Device: id, State: in.State, Before: before, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	items := make([]commandBody, len(found))
	for i := range found {
		items[i] = commandOf(&found[i])
	}
	return list(items, idOrEmpty(next)), nil
}

// parseNumber reads a cursor that is a number, 0 for none.
func parseNumber(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return 0, errCursor()
	}
	return n, nil
}

func (a *API) oneCommand(ctx context.Context, in *CommandPath, find func(context.Context, muster.DeviceID, int64) (command.Command, error)) (*body[commandBody], error) {
	device, err := a.commanded(in.DevicePath)
	if err != nil {
		return nil, err
	}
	id, err := command.ParseID(in.Command)
	if err != nil {
		return nil, err
	}
	c, err := find(ctx, device, id)
	if err != nil {
		return nil, err
	}
	return &body[commandBody]{commandOf(&c)}, nil
}
