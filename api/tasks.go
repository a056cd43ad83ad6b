package api

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
	"muster/audit"
	"muster/tasks"
)

// TaskStarter starts tasks and calls them off.
type TaskStarter interface {
	Start(ctx context.Context, kind string, input json.RawMessage, owner tasks.Owner) (tasks.Task, error)
	StartWith(ctx context.Context, kind string, input json.RawMessage, owner tasks.Owner, file io.Reader) (tasks.Task, error)
	Cancel(ctx context.Context, id string, by tasks.Viewer) (tasks.Task, error)
}

// TaskReader finds tasks and waits for them.
type TaskReader interface {
	List(q tasks.Query) (page []tasks.Task, next string)
	Task(id string, by tasks.Viewer) (tasks.Task, error)
	Wait(ctx context.Context, id string, by tasks.Viewer, d time.Duration) (tasks.Task, error)
}

// TaskResults gives what tasks made.
type TaskResults interface {
	OpenResult(id string, by tasks.Viewer) (tasks.Task, io.ReadSeekCloser, error)
	Get(ctx context.Context, kind string, input []byte, owner tasks.Owner, d time.Duration) (tasks.Result, []byte, error)
	Kinds() []tasks.Kind
}

// Tasks is what the API needs of *tasks.Tasks.
type Tasks interface {
	TaskStarter
	TaskReader
	TaskResults
}

// TaskBody is a task as it is shown. It is exported because others show tasks too.
type TaskBody struct {
	ID              string          `json:"id" example:"tsk_0hi9lhhjolc"`
	Kind            string          `json:"kind" example:"devices.import"`
	State           string          `json:"state" enum:"queued,running,succeeded,failed,cancelled,timed_out"`
	Owner           string          `json:"owner" doc:"Id of the user, key or browser session that started it"`
	OwnerName       string          `json:"owner_name"`
	Input           json.RawMessage `json:"input" doc:"What was asked for, an object"`
	Durable         bool            `json:"durable" doc:"Whether it goes on after a restart of the server"`
	Done            int64           `json:"done" minimum:"0" doc:"Units that are done"`
	Total           int64           `json:"total" minimum:"0" doc:"Units that there are; 0 while that is not known"`
	Note            string          `json:"note,omitempty" doc:"What it does just now, for people"`
	CancelRequested bool            `json:"cancel_requested" doc:"It ends soon, or has ended, because somebody asked for that"`
	Error           *taskFault      `json:"error,omitempty" doc:"Why it failed or timed out"`
	Result          *taskResult     `json:"result,omitempty" doc:"Absent before the end, without one and when its time to live is over"`
	CreatedAt       string          `json:"created_at" format:"date-time"`
	StartedAt       *string         `json:"started_at" format:"date-time"`
	EndedAt         *string         `json:"ended_at" format:"date-time"`
}

type taskFault struct {
	Code   string `json:"code" doc:"As in a problem" example:"timeout"`
	Detail string `json:"detail" doc:"For people"`
}

type taskResult struct {
	URL         string `json:"url" doc:"Path to get it at"`
	ContentType string `json:"content_type"`
	Size        int64  `json:"size" doc:"Bytes"`
	ExpiresAt   string `json:"expires_at" format:"date-time"`
}

// TaskOf returns t as it is shown.
func TaskOf(t *tasks.Task) TaskBody {
	out := TaskBody{
		ID: t.ID, Kind: t.Kind, State: string(t.State), Owner: t.Owner.ID, OwnerName: t.Owner.Name, Input: t.Input, Durable: t.Durable,
		Done: t.Done, Total: t.Total, Note: t.Note, CancelRequested: t.Cancelled,
		CreatedAt: stamp(t.Created), StartedAt: stampOrNull(t.Started), EndedAt: stampOrNull(t.Ended),
	}
	if t.Code != "" {
		out.Error = &taskFault{t.Code, t.Error}
	}
	if t.Result != nil {
		out.Result = &taskResult{taskPath(t.ID) + "/result", t.Result.Type, t.Result.Size, stamp(t.Expires)}
	}
	return out
}

func taskPath(id string) string { return prefix + "/tasks/" + id }

// taskKind is a kind of task as it is shown.
type taskKind struct {
	Kind        string `json:"kind" example:"identicon"`
	Summary     string `json:"summary"`
	Door        string `json:"door,omitempty" doc:"How one is started; absent when POST /tasks does"`
	Scope       string `json:"scope" doc:"Needed to start one"`
	Durable     bool   `json:"durable"`
	TimeoutS    int64  `json:"timeout_s" doc:"Seconds that one may take"`
	Concurrency int    `json:"concurrency" doc:"How many run at a time"`
	Queue       int    `json:"queue" doc:"How many wait beside them; the next is 429"`
	KeepResultS int64  `json:"keep_result_s" doc:"Seconds that a result is kept"`
}

type newTask struct {
	Kind  string          `json:"kind" minLength:"1" maxLength:"64" example:"identicon"`
	Input json.RawMessage `json:"input,omitempty" doc:"An object as the kind wants it, at most 16 KiB; {} when absent"`
}

// startedTask is the answer to the start of a task: 202 (RFC 9110, section 15.3.3).
type startedTask struct {
	Location string `header:"Location"`
	Body     TaskBody
}

// TaskPath is the part of an input that names a task. It is exported because huma looks
// into exported embedded fields only.
type TaskPath struct {
	Task string `path:"task" maxLength:"64" doc:"The task's id"`
}

// TaskWait is the part of an input that waits.
type TaskWait struct {
	Wait string `query:"wait" maxLength:"16" doc:"How long to wait for the end, such as 10s, at most 60s; 408 when it has not come" example:"10s"`
}

// tasksEnd is how long a cancelled task is waited for.
const tasksEnd = 5 * time.Second

func (a *API) taskRoutes() {
	tags := []string{"tasks"}
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-tasks", Method: http.MethodGet, Path: "/tasks", Tags: tags, Summary: "List tasks, newest first",
		Description: "Your own; an admin sees all.",
	}, a.listTasks)
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "start-task", Method: http.MethodPost, Path: "/tasks", DefaultStatus: http.StatusAccepted, Tags: tags, Summary: "Start a task",
		Description: "The kinds are at /task-kinds. A task that asks for the same as another one of a kind that is shared is that one: " +
			"whoever asked sees, fetches and leaves it as his own.",
		Errors: []int{404},
	}, a.startTask)
	routeBig(a, requestTime+tasks.MaxWait, accounts.DevicesRead, huma.Operation{
		OperationID: "get-task", Method: http.MethodGet, Path: "/tasks/{task}", Tags: tags, Summary: "Get a task, or wait for its end",
		Errors: []int{404, 408},
	}, a.getTask)
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "cancel-task", Method: http.MethodDelete, Path: "/tasks/{task}", DefaultStatus: http.StatusOK, Tags: tags, Summary: "End a task",
		Description: "One that runs ends as soon as it can; what it has done stays done. Of an import the result so far is kept. " +
			"Who shares a task with others leaves it: it goes on for them, and is his no more.",
		Errors: []int{404, 409},
	}, a.cancelTask)
	a.taskResultRoute(tags)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-task-kinds", Method: http.MethodGet, Path: "/task-kinds", Tags: tags, Summary: "List the kinds of tasks",
	}, a.listTaskKinds)
	a.identiconRoutes()
}

// ownerOf returns who owns what the request starts.
func ownerOf(r *request) tasks.Owner {
	who := actorOf(r)
	return tasks.Owner{Kind: who.Kind, ID: cmp.Or(r.who.User, who.ID), Name: who.Name} // a user's outlives the session
}

// viewerOf returns who looks at tasks.
func viewerOf(ctx context.Context) tasks.Viewer {
	r := requestOf(ctx)
	return tasks.Viewer{ID: ownerOf(r).ID, Admin: r.who.Allows(accounts.Admin), Allows: r.who.Allows}
}

func (a *API) listTasks(ctx context.Context, in *struct {
	State  string `query:"state" enum:"queued,running,succeeded,failed,cancelled,timed_out" doc:"Only those in this state"`
	Kind   string `query:"kind" maxLength:"64" doc:"Only those of this kind"`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Cursor string `query:"cursor" maxLength:"64" doc:"Of the page before"`
},
) (*body[page[TaskBody]], error) {
	found, next := a.Tasks.List(tasks.Query{By: viewerOf(ctx), State: tasks.State(in.State), Kind: in.Kind, After: in.Cursor, Limit: in.Limit})
	items := make([]TaskBody, len(found))
	for i := range found {
		items[i] = TaskOf(&found[i])
	}
	return list(items, next), nil
}

func (a *API) startTask(ctx context.Context, in *body[newTask]) (*startedTask, error) {
	r := requestOf(ctx)
	if r.who.Selector != "" {
		return nil, muster.Errorf(muster.Forbidden, "a key for some devices only may start no tasks")
	}
	for _, k := range a.Tasks.Kinds() {
		switch {
		case k.Name != in.Body.Kind:
		case !r.who.Allows(k.Scope):
			return nil, muster.Errorf(muster.Forbidden, "this needs the scope %s", k.Scope)
		case k.Door != "":
			return nil, muster.Errorf(muster.Invalid, "a task of kind %s is started by %s", k.Name, k.Door)
		}
	}
	t, err := a.Tasks.Start(ctx, in.Body.Kind, in.Body.Input, ownerOf(r))
	if err != nil {
		return nil, err
	}
	return &startedTask{taskPath(t.ID), TaskOf(&t)}, nil
}

func (a *API) getTask(ctx context.Context, in *struct {
	TaskPath
	TaskWait
},
) (*body[TaskBody], error) {
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	var t tasks.Task
	if wait > 0 {
		t, err = a.Tasks.Wait(ctx, in.Task, viewerOf(ctx), wait)
	} else {
		t, err = a.Tasks.Task(in.Task, viewerOf(ctx))
	}
	if err != nil {
		return nil, err
	}
	return &body[TaskBody]{TaskOf(&t)}, nil
}

func (a *API) cancelTask(ctx context.Context, in *TaskPath) (*body[TaskBody], error) {
	by := viewerOf(ctx)
	t, err := a.Tasks.Cancel(ctx, in.Task, by)
	if err != nil {
		return nil, err
	}
	ended, err := a.Tasks.Wait(ctx, in.Task, by, tasksEnd)
	if err == nil {
		t = ended
	} // else it ends later, which the answer says
	return &body[TaskBody]{TaskOf(&t)}, nil
}

func (a *API) listTaskKinds(context.Context, *struct{}) (*body[page[taskKind]], error) {
	kinds := a.Tasks.Kinds()
	items := make([]taskKind, 0, len(kinds))
	for _, k := range kinds {
		items = append(items, taskKind{
			Kind: k.Name, Summary: k.Summary, Door: k.Door, Scope: k.Scope, Durable: k.Durable, TimeoutS: int64(k.Timeout / time.Second),
			Concurrency: k.Concurrency, Queue: k.Queue, KeepResultS: int64(k.KeepResult / time.Second),
		})
	}
	return list(items, ""), nil
}

func (a *API) taskResultRoute(tags []string) {
	op := huma.Operation{
		OperationID: "get-task-result", Method: http.MethodGet, Path: "/tasks/{task}/result", Tags: tags, Summary: "Get what a task made",
		Description: "Byte ranges are served. The result of an import has credentials: it is for who started the task alone, while he has the scope devices:write. " +
			"That of a task that failed or timed out is a problem which says why.",
		Errors: []int{404, 408, 409, 413, 416, 422},
		Responses: map[string]*huma.Response{
			"200": {Description: "OK", Content: map[string]*huma.MediaType{"*/*": {Schema: &huma.Schema{Type: "string", Description: "As the task's result says"}}}},
			"206": {Description: "Partial Content", Content: map[string]*huma.MediaType{"*/*": {Schema: &huma.Schema{Type: "string"}}}},
			"304": {Description: "Not Modified"},
		},
	}
	a.routeFor(exportTime, accounts.DevicesRead, &op)
	huma.Register(a.huma, op, func(ctx context.Context, in *TaskPath) (*huma.StreamResponse, error) {
		t, f, err := a.Tasks.OpenResult(in.Task, viewerOf(ctx))
		if err != nil {
			return nil, a.problem(requestOf(ctx), err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer f.Close()
			r, w := humago.Unwrap(hc)
			h := w.Header()
			h.Set("Content-Type", t.Result.Type)
			h.Set("Content-Disposition", `attachment; filename="`+strings.ReplaceAll(t.Kind, ".", "-")+extension(t.Result.Type)+`"`)
			h.Set("Cache-Control", "no-store")
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Etag", `"`+t.ID+`"`)
			serveContent(w, r, f)
		}}, nil
	})
}

// extension returns the end of a file's name for a media type.
func extension(contentType string) string {
	kind, _, _ := strings.Cut(contentType, ";")
	return map[string]string{"text/csv": ".csv", "application/x-ndjson": ".ndjson", "application/json": ".json", "image/png": ".png"}[kind]
}

// serveContent answers with all or a range of f, or with 304, by If-None-Match, If-Range
// and Range; other conditions are not looked at.
func serveContent(w http.ResponseWriter, r *http.Request, f io.ReadSeeker) {
	r = r.Clone(r.Context())
	r.Header.Del("If-Match")
	r.Header.Del("If-Unmodified-Since")
	http.ServeContent(&served{ResponseWriter: w}, r, "", time.Time{}, f)
}

// served gives a client that takes what is written another while, and refuses a range
// with a problem.
type served struct {
	http.ResponseWriter
	refused bool
}

// WriteHeader implements http.ResponseWriter.
func (s *served) WriteHeader(status int) {
	if status != http.StatusRequestedRangeNotSatisfiable {
		s.ResponseWriter.WriteHeader(status)
		return
	}
	s.refused = true
	h := s.Header()
	h.Del("Etag")
	h.Del("Content-Disposition")
	p := newProblem(status, "the range is not within what there is")
	p.Code = "range_not_satisfiable"
	writeProblem(s.ResponseWriter, p)
}

// Write implements http.ResponseWriter.
func (s *served) Write(b []byte) (int, error) {
	if s.refused {
		return len(b), nil // the plain text that the problem stands for
	}
	if err := send(s.ResponseWriter, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Async is the part of an input that asks for a task instead of an answer.
type Async struct {
	Prefer string `header:"Prefer" maxLength:"256" doc:"respond-async (RFC 7240) starts a task, which goes on after a restart, and answers 202 at once" example:"respond-async"`
}

// applied is the answer's Preference-Applied (RFC 7240, section 3).
const applied = "respond-async"

// async says whether the request prefers a task, and may have one: a preference is no
// demand (RFC 7240, section 2), so that who may not start tasks is answered as ever, and
// so is a key for some devices only, which tasks do not know of.
func (a *API) async(ctx context.Context) bool {
	r := requestOf(ctx)
	if !r.who.Allows(accounts.DevicesWrite) || r.who.Selector != "" || r.Method == http.MethodHead {
		return false // HEAD changes nothing
	}
	for _, line := range r.Header.Values("Prefer") {
		for part := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(name), applied) {
				return true
			}
		}
	}
	return false
}

// accepted answers with the task that is done instead, or why there is none.
func (a *API) accepted(hc huma.Context, op *huma.Operation, start func(ctx context.Context, owner tasks.Owner) (tasks.Task, error)) {
	ctx := hc.Context()
	if audit.Of(ctx) == nil { // a GET has no trail, and a task is a change
		ctx = a.noted(ctx, requestOf(ctx))
	}
	t, err := start(ctx, ownerOf(requestOf(ctx)))
	if err != nil {
		a.refuse(hc, err)
		return
	}
	a.recorded(ctx, op)
	_, w := humago.Unwrap(hc)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Location", taskPath(t.ID))
	h.Set("Preference-Applied", applied)
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(TaskOf(&t)) // the client is gone: nobody is left to tell
}

// documentAccepted adds 202 to the answers of op, with a task as its body.
func (a *API) documentAccepted(op *huma.Operation) {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(typeOf[TaskBody](), true, "TaskBody")
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["202"] = &huma.Response{
		Description: "Accepted: a task does it, as Prefer asked",
		Headers: map[string]*huma.Param{
			"Location":           {Schema: &huma.Schema{Type: "string"}, Description: "Path of the task"},
			"Preference-Applied": {Schema: &huma.Schema{Type: "string"}},
		},
		Content: map[string]*huma.MediaType{"application/json": {Schema: schema}},
	}
}
