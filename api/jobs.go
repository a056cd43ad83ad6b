package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/audit"
	"muster/devices/command"
)

// JobKeeper makes jobs and changes how they go on.
type JobKeeper interface {
	// CountJob returns how many targets a job would have.
	CountJob(s command.JobSpec) (int, error)
	CreateJob(ctx context.Context, s command.JobSpec) (command.Job, error)
	ControlJob(ctx context.Context, id int64, a command.Action) (command.Job, error)
}

// JobReader finds jobs.
type JobReader interface {
	Job(ctx context.Context, id int64) (command.Job, error)
	Jobs(ctx context.Context, before int64, limit int) (page []command.Job, next int64, err error)
	JobTargets(ctx context.Context, q command.TargetQuery) (page []command.Target, next int64, err error)
}

type jobWave struct {
	Percent int `json:"percent,omitempty" minimum:"1" maximum:"100" doc:"Of all targets, rounded up; or"`
	Count   int `json:"count,omitempty" minimum:"1" maximum:"1000000" doc:"so many"`
}

type jobAbort struct {
	FailedPercent int `json:"failed_percent" minimum:"0" maximum:"100" doc:"Abort when so many percent of the finished targets failed or expired; 0 for never"`
	MinFinished   int `json:"min_finished,omitempty" minimum:"0" maximum:"1000000" doc:"and at least so many are finished"`
}

// JobParts is what a job is made of, as it is written and shown. It is exported because
// huma looks into exported embedded fields only.
type JobParts struct {
	Q             string          `json:"q,omitempty" maxLength:"2048" doc:"Which devices, in the query language; id:* is all. Absent when they are named by their ids"`
	Kind          string          `json:"kind" enum:"command,desired"`
	Method        string          `json:"method,omitempty" maxLength:"64" doc:"Of the commands"`
	Params        json.RawMessage `json:"params,omitempty" doc:"Of the commands: any JSON, at most 64 KiB"`
	TTLS          int             `json:"ttl_s,omitempty" minimum:"1" maximum:"2592000" doc:"Seconds to live of each command, from when it is made; a day when absent"`
	Patch         json.RawMessage `json:"patch,omitempty" doc:"Of kind desired: a merge patch (RFC 7396) of each device's own desired document"`
	RatePerMinute int             `json:"rate_per_minute,omitempty" minimum:"0" maximum:"600000" doc:"Targets started a minute; 0 for no limit"`
	MaxInFlight   int             `json:"max_in_flight,omitempty" minimum:"0" maximum:"1000000" doc:"Targets started and not final; 0 for no limit"`
	Abort         *jobAbort       `json:"abort,omitempty"`
}

type newJob struct {
	JobParts
	IDs    []string  `json:"ids,omitempty" maxItems:"1000" nullable:"false" doc:"Their ids; give them or q"`
	Waves  []jobWave `json:"waves,omitempty" maxItems:"100" nullable:"false" doc:"Each starts when all targets of the one before are final; what they leave is one more"`
	DryRun bool      `json:"dry_run,omitempty" doc:"Only count the targets"`
}

// jobBody is a job as it is shown.
type jobBody struct {
	ID string `json:"id"`
	JobParts
	State     string    `json:"state" enum:"running,paused,aborted,done"`
	Reason    string    `json:"reason,omitempty" doc:"Why it was aborted"`
	Wave      int       `json:"wave" doc:"The last wave that has begun, from 1"`
	Waves     []int64   `json:"waves" nullable:"false" doc:"How many targets each wave has"`
	Total     int64     `json:"total"`
	Counts    jobCounts `json:"counts"`
	CreatedBy string    `json:"created_by"`
	CreatedAt string    `json:"created_at" format:"date-time"`
	EndedAt   *string   `json:"ended_at" format:"date-time" doc:"When it was done or aborted"`
}

type jobCounts struct {
	Pending   int64 `json:"pending" doc:"Not started"`
	Running   int64 `json:"running" doc:"Started and not final"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
	Expired   int64 `json:"expired"`
	Cancelled int64 `json:"cancelled" doc:"With those that an aborted job did not start"`
}

type countedJob struct {
	DryRun  bool     `json:"dry_run"`
	Matched int      `json:"matched" doc:"How many devices match"`
	Job     *jobBody `json:"job,omitempty" doc:"Absent in a dry run"`
}

type jobTarget struct {
	Number  int64           `json:"number" doc:"Targets start in this order, which is random"`
	Device  muster.DeviceID `json:"device"`
	State   string          `json:"state" enum:"pending,running,succeeded,failed,expired,cancelled"`
	Command string          `json:"command,omitempty" doc:"Id of the command that it was sent"`
	Error   string          `json:"error,omitempty" doc:"Why it failed without a command"`
}

func jobOf(j *command.Job) jobBody {
	n := j.Counts()
	out := jobBody{
		ID: command.FormatID(j.ID), State: string(j.Phase), Reason: j.Reason, Wave: j.Wave, Waves: make([]int64, len(j.Ends)), Total: j.Total,
		Counts: jobCounts(n), CreatedBy: j.CreatedBy, CreatedAt: stamp(j.Created), EndedAt: stampOrNull(j.Ended),
		JobParts: JobParts{
			Q: j.Query, Kind: string(j.Kind), Method: j.Method, Params: j.Params, TTLS: int(j.TTL / time.Second), Patch: j.Patch,
			RatePerMinute: j.Rate, MaxInFlight: j.MaxInFlight,
		},
	}
	if j.Abort.FailedPercent > 0 {
		out.Abort = &jobAbort{j.Abort.FailedPercent, j.Abort.MinFinished}
	}
	before := int64(0)
	for i, end := range j.Ends {
		out.Waves[i] = end - before
		before = end
	}
	return out
}

// JobPath is the part of an input that names a job.
type JobPath struct {
	Job string `path:"job" maxLength:"64" doc:"The job's id"`
}

func (a *API) jobRoutes() {
	tags := []string{"jobs"}
	create := huma.Operation{
		OperationID: "create-job", Metadata: map[string]any{ownKeys: true}, Method: http.MethodPost, Path: "/jobs", DefaultStatus: http.StatusCreated, Tags: tags,
		Summary: "Send many devices a command, or change what they are wanted to be",
		Description: "Which devices match is found out once, now. A job of kind desired needs the scope devices:write besides. " +
			"At most 16 jobs run or are paused at a time, each with at most 1,000,000 devices.",
		Errors: []int{404, 409},
	}
	create.Responses = map[string]*huma.Response{"200": {Description: "What a dry run found", Content: map[string]*huma.MediaType{
		"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(typeOf[countedJob](), true, "")},
	}}}
	routeBig(a, exportTime, accounts.CommandsSend, create, a.createJob)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-jobs", Method: http.MethodGet, Path: "/jobs", Tags: tags, Summary: "List jobs, newest first",
	}, a.listJobs)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-job", Method: http.MethodGet, Path: "/jobs/{job}", Tags: tags, Summary: "Get a job", Errors: []int{404},
	}, func(ctx context.Context, in *JobPath) (*body[jobBody], error) {
		id, err := command.ParseID(in.Job)
		if err != nil {
			return nil, err
		}
		j, err := a.Commands.Job(ctx, id)
		if err != nil {
			return nil, err
		}
		return &body[jobBody]{jobOf(&j)}, nil
	})
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-job-targets", Method: http.MethodGet, Path: "/jobs/{job}/targets", Tags: tags,
		Summary: "List the devices of a job", Errors: []int{404},
	}, a.listJobTargets)
	a.jobAction(command.Pause, "Start no more devices of a job", "What was started goes on.")
	a.jobAction(command.Resume, "Go on with a paused job", "")
	a.jobAction(command.Stop, "End a job for good", "Its commands that are queued are cancelled; those that were sent go on.")
	a.jobAction(command.NextWave, "Begin the next wave of a job", "Though the wave before is not finished.")
}

func (a *API) jobAction(action command.Action, summary, description string) {
	route(a, accounts.CommandsSend, huma.Operation{
		OperationID: string(action) + "-job", Method: http.MethodPost, Path: "/jobs/{job}/" + string(action), Tags: []string{"jobs"},
		Summary: summary, Description: description, Errors: []int{404, 409},
	}, func(ctx context.Context, in *JobPath) (*body[jobBody], error) {
		id, err := command.ParseID(in.Job)
		if err != nil {
			return nil, err
		}
		j, err := a.Commands.ControlJob(ctx, id, action)
		if err != nil {
			return nil, err
		}
		return &body[jobBody]{jobOf(&j)}, nil
	})
}

// startedJob is the answer to a new job; a dry run has made nothing.
type startedJob struct {
	Status   int
	Location string `header:"Location"`
	Body     countedJob
}

func (a *API) createJob(ctx context.Context, in *struct {
	Idempotent
	Body newJob
},
) (*startedJob, error) {
	b, who := &in.Body, requestOf(ctx).who
	if b.Kind == string(command.KindDesired) && !who.Allows(accounts.DevicesWrite) {
		return nil, muster.Errorf(muster.Forbidden, "a job of kind desired needs the scope %s", accounts.DevicesWrite)
	}
	named, err := a.named(ctx, b.IDs)
	if err != nil {
		return nil, err
	}
	s := command.JobSpec{
		Query: b.Q, Devices: named, Kind: command.Kind(b.Kind), Method: b.Method, Params: b.Params, TTL: time.Duration(b.TTLS) * time.Second, Patch: b.Patch,
		Rate: b.RatePerMinute, MaxInFlight: b.MaxInFlight, By: ownerOf(requestOf(ctx)).ID, Key: in.Key,
	}
	if b.Abort != nil {
		s.Abort = command.Abort{FailedPercent: b.Abort.FailedPercent, MinFinished: b.Abort.MinFinished}
	}
	for _, w := range b.Waves {
		s.Waves = append(s.Waves, command.Wave(w))
	}
	if b.DryRun {
		audit.Nothing(ctx)
		n, err := a.Commands.CountJob(s)
		if err != nil {
			return nil, err
		}
		return &startedJob{Status: http.StatusOK, Body: countedJob{DryRun: true, Matched: n}}, nil
	}
	j, err := a.Commands.CreateJob(ctx, s)
	if err != nil {
		return nil, err
	}
	made := jobOf(&j)
	return &startedJob{http.StatusCreated, prefix + "/jobs/" + made.ID, countedJob{Matched: int(j.Total), Job: &made}}, nil
}

func (a *API) listJobs(ctx context.Context, in *struct {
	Limit int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	After string `query:"after" maxLength:"64" doc:"The cursor of the page before"`
},
) (*body[page[jobBody]], error) {
	before, err := parseNumber(in.After)
	if err != nil {
		return nil, err
	}
	found, next, err := a.Commands.Jobs(ctx, before, in.Limit)
	if err != nil {
		return nil, err
	}
	items := make([]jobBody, len(found))
	for i := range found {
		items[i] = jobOf(&found[i])
	}
	return list(items, idOrEmpty(next)), nil
}

func (a *API) listJobTargets(ctx context.Context, in *struct {
	JobPath
	State string `query:"state" enum:"pending,running,succeeded,failed,expired,cancelled"`
	Limit int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	After string `query:"after" maxLength:"64" doc:"The cursor of the page before"`
},
) (*body[page[jobTarget]], error) {
	id, err := command.ParseID(in.Job)
	if err != nil {
		return nil, err
	}
	from, err := parseNumber(in.After)
	if err != nil {
		return nil, err
	}
	found, next, err := a.Commands.JobTargets(ctx, command.TargetQuery{Job: id, State: in.State, From: from, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	items := make([]jobTarget, len(found))
	for i, t := range found {
		items[i] = jobTarget{t.Number, t.Device, t.State, idOrEmpty(t.Command), t.Error}
	}
	return list(items, idOrEmpty(next)), nil
}
