package api

import (
	"context"
	"net/http"
	"sort"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster/accounts"
	"muster/notify"
)

// topicBytes bounds a topic's body: ten steps that name a hundred people each, and three templates.
const topicBytes = 256 << 10

type topicStep struct {
	AfterS   int64    `json:"after_s" minimum:"1" maximum:"604800" doc:"Seconds after the step before, or after the sending for the first" example:"300"`
	To       []string `json:"to" minItems:"1" maxItems:"100" nullable:"false" doc:"Ids of users, or device: and the id of a device"`
	Channels []string `json:"channels,omitempty" maxItems:"10" nullable:"false" enum:"email,mqtt" doc:"Beside the inbox"`
}

type topicEscalation struct {
	Steps  []topicStep `json:"steps" maxItems:"10" nullable:"false" doc:"Who is told next while nobody acks"`
	Repeat int         `json:"repeat,omitempty" minimum:"0" maximum:"100" doc:"How often the last step is done again"`
}

type topicSource struct {
	Types    []string `json:"types" minItems:"1" maxItems:"50" nullable:"false" doc:"Types of events (GET /event-types), or families such as presence.*" example:"[\"presence.offline\"]"`
	Q        string   `json:"q,omitempty" maxLength:"4096" doc:"Only events of devices that match this; empty for all"`
	Severity string   `json:"severity" enum:"info,warning,major,critical"`
	Clears   []string `json:"clears,omitempty" maxItems:"50" nullable:"false" doc:"Types of events that resolve what was told of the same device" example:"[\"presence.online\"]"`
	Title    string   `json:"title,omitempty" maxLength:"16384" doc:"A template; empty for Muster's own words"`
}

// topicTemplate is how mails and webhooks are worded.
type topicTemplate struct {
	MailSubject string `json:"mail_subject,omitempty" maxLength:"16384"`
	MailText    string `json:"mail_text,omitempty" maxLength:"16384"`
	Webhook     string `json:"webhook,omitempty" maxLength:"16384" doc:"Makes JSON"`
}

// topic is a topic as it is shown.
type topic struct {
	ID           string           `json:"id" example:"top_J7WQ2VZKPN4XA3MBTCYHD5RE6U"`
	Name         string           `json:"name" example:"cold-chain"`
	Title        string           `json:"title" doc:"For people; empty for the name"`
	Description  string           `json:"description"`
	Owner        string           `json:"owner" doc:"Id of the user who answers for it; empty for none"`
	Visibility   string           `json:"visibility" enum:"private,internal" doc:"private: only its members see it. internal: every user does, and may subscribe"`
	Status       string           `json:"status" enum:"active,inactive" doc:"inactive: nothing can be sent"`
	RetentionS   int64            `json:"retention_s" doc:"How long notifications are kept, in seconds"`
	AckPolicy    string           `json:"ack_policy" enum:"none,any,all" doc:"Whose ack makes a notification acked"`
	Role         string           `json:"role,omitempty" enum:"owner,publisher,subscriber" doc:"Of who asks; absent for no more than to see it"`
	MayPublish   bool             `json:"may_publish" doc:"Whether who asks may send to it"`
	Subscribers  int              `json:"subscribers" doc:"How many are subscribed"`
	Subscription *subscription    `json:"subscription,omitempty" doc:"Of who asks; absent for none"`
	Escalation   *topicEscalation `json:"escalation,omitempty" doc:"This and what follows is shown to those who may publish; absent for none"`
	Sources      []topicSource    `json:"sources,omitempty" nullable:"false" doc:"The events that become notifications"`
	Devices      string           `json:"devices,omitempty" doc:"Which devices may publish, in the query language; absent for none"`
	Template     *topicTemplate   `json:"template,omitempty"`
	Version      int64            `json:"version"`
	CreatedAt    string           `json:"created_at" format:"date-time"`
	UpdatedAt    string           `json:"updated_at" format:"date-time"`
}

type newTopic struct {
	Name        string           `json:"name" minLength:"1" maxLength:"64" doc:"1 to 64 of a-z, 0-9, '.', '_' and '-'; unique"`
	Title       string           `json:"title,omitempty" maxLength:"200"`
	Description string           `json:"description,omitempty" maxLength:"1000"`
	Owner       string           `json:"owner,omitempty" maxLength:"64" doc:"Id of a user, given by admins; who makes it when absent"`
	Visibility  string           `json:"visibility,omitempty" enum:"private,internal" doc:"internal when absent"`
	Status      string           `json:"status,omitempty" enum:"active,inactive" doc:"active when absent"`
	RetentionS  int64            `json:"retention_s,omitempty" minimum:"3600" maximum:"158112000" doc:"90 days when absent"`
	AckPolicy   string           `json:"ack_policy,omitempty" enum:"none,any,all" doc:"any when absent"`
	Escalation  *topicEscalation `json:"escalation,omitempty"`
	Sources     []topicSource    `json:"sources,omitempty" maxItems:"20" nullable:"false"`
	Devices     string           `json:"devices,omitempty" maxLength:"4096" doc:"Which devices may publish, in the query language"`
	Template    *topicTemplate   `json:"template,omitempty"`
	IfAbsent    bool             `json:"if_absent,omitempty" doc:"Answer 200 with the topic of this name when there is one that who asks may see, as it is"`
}

type changedTopic struct {
	Name        *string          `json:"name,omitempty" minLength:"1" maxLength:"64" nullable:"false"`
	Title       *string          `json:"title,omitempty" maxLength:"200" nullable:"false"`
	Description *string          `json:"description,omitempty" maxLength:"1000" nullable:"false"`
	Owner       *string          `json:"owner,omitempty" maxLength:"64" nullable:"false" doc:"By admins only"`
	Visibility  *string          `json:"visibility,omitempty" enum:"private,internal" nullable:"false"`
	Status      *string          `json:"status,omitempty" enum:"active,inactive" nullable:"false"`
	RetentionS  *int64           `json:"retention_s,omitempty" minimum:"3600" maximum:"158112000" nullable:"false"`
	AckPolicy   *string          `json:"ack_policy,omitempty" enum:"none,any,all" nullable:"false" doc:"Of what is sent from now on"`
	Escalation  *topicEscalation `json:"escalation,omitempty" doc:"As a whole; no steps for none"`
	Sources     []topicSource    `json:"sources,omitempty" maxItems:"20" nullable:"false" doc:"All of them; [] for none"`
	Devices     *string          `json:"devices,omitempty" maxLength:"4096" nullable:"false" doc:"Empty for none"`
	Template    *topicTemplate   `json:"template,omitempty" doc:"As a whole"`
}

// TopicPath is the part of an input that names a topic. It is exported because huma looks
// into exported embedded fields only.
type TopicPath struct {
	Topic string `path:"topic" maxLength:"64" doc:"The topic's id or name"`
}

// topicTag is the tag of what is written on a topic.
func topicTag(t notify.Topic) string { return strconv.FormatInt(t.Version, 10) }

func (a *API) topicRoutes() {
	tags := []string{"topics"}
	route(a, accounts.TopicsRead, huma.Operation{
		OperationID: "list-topics", Method: http.MethodGet, Path: "/topics", Tags: tags,
		Summary: "List the topics that one sees, by name, each with what one may do in it",
	}, a.listTopics)
	route(a, accounts.TopicsWrite, huma.Operation{
		OperationID: "create-topic", Method: http.MethodPost, Path: "/topics", DefaultStatus: http.StatusCreated, Tags: tags, MaxBodyBytes: topicBytes,
		Summary: "Make a topic", Description: "Who makes it owns it. With if_absent a topic of the name that is there already is answered, with 200: " +
			"however many ask at once, all get the same one.", Errors: []int{409},
		Responses: map[string]*huma.Response{"200": {Description: "There was one already", Content: map[string]*huma.MediaType{
			"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(typeOf[topic](), true, "")},
		}}},
	}, a.createTopic)
	route(a, accounts.TopicsRead, huma.Operation{
		OperationID: "get-topic", Method: http.MethodGet, Path: "/topics/{topic}", Tags: tags, Summary: "Get a topic", Errors: []int{404},
	}, func(ctx context.Context, in *TopicPath) (*body[topic], error) {
		t, err := a.Notify.Topic(a.asking(ctx), in.Topic)
		if err != nil {
			return nil, err
		}
		return a.topicAnswer(ctx, t)
	})
	route(a, accounts.TopicsWrite, huma.Operation{
		OperationID: "change-topic", Method: http.MethodPatch, Path: "/topics/{topic}", Tags: tags, MaxBodyBytes: topicBytes,
		Summary: "Change a topic", Description: "What is absent stays. It needs the role owner in the topic.", Errors: []int{404, 409},
	}, a.changeTopic)
	route(a, accounts.TopicsWrite, huma.Operation{
		OperationID: "delete-topic", Method: http.MethodDelete, Path: "/topics/{topic}", Tags: tags,
		Summary: "Delete a topic, its members and subscriptions", Description: "Its notifications are gone soon after. It needs the role owner in the topic.", Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		TopicPath
		Conditions
	},
	) (*struct{}, error) {
		ctx, err := bound(ctx, in.Conditions, topicTag)
		if err != nil {
			return nil, err
		}
		return nil, a.Notify.DeleteTopic(ctx, a.asking(ctx), in.Topic)
	})
	a.previewRoute()
	a.memberRoutes()
	a.subscriptionRoutes()
}

func (a *API) listTopics(ctx context.Context, in *After) (*body[page[topic]], error) {
	who := a.asking(ctx)
	all := a.Notify.Topics(who)
	from := sort.Search(len(all), func(i int) bool { return all[i].Name > in.After })
	found, next := paged(all[from:], in.Limit, func(t *notify.Topic) string { return t.Name })
	items, err := a.topics(ctx, who, found)
	if err != nil {
		return nil, err
	}
	return list(items, next), nil
}

// topics shows many with one question for each thing that the store knows.
func (a *API) topics(ctx context.Context, who notify.Who, found []notify.Topic) ([]topic, error) {
	ids := make([]string, len(found))
	for i := range found {
		ids[i] = found[i].ID
	}
	counts, err := a.Notify.Subscribers(ctx, ids)
	if err != nil {
		return nil, err
	}
	mine := map[string]*notify.Subscription{}
	if who.Subject() != "" {
		own, err := a.Notify.SubscriptionsOf(ctx, who)
		if err != nil {
			return nil, err
		}
		for i := range own {
			mine[own[i].Topic] = &own[i]
		}
	}
	items := make([]topic, len(found))
	for i := range found {
		items[i] = a.topic(ctx, who, &found[i], counts[found[i].ID], mine[found[i].ID])
	}
	return items, nil
}

// topicAnswer shows one, as a document.
func (a *API) topicAnswer(ctx context.Context, t notify.Topic) (*body[topic], error) {
	items, err := a.topics(ctx, a.asking(ctx), []notify.Topic{t})
	if err != nil {
		return nil, err
	}
	documented(ctx, topicTag(t))
	return &body[topic]{items[0]}, nil
}

func (a *API) topic(ctx context.Context, who notify.Who, t *notify.Topic, subscribers int, own *notify.Subscription) topic {
	out := topic{
		ID: t.ID, Name: t.Name, Title: t.Title, Description: t.Description, Owner: t.Owner, Visibility: string(t.Visibility), Status: string(t.Status),
		RetentionS: int64(t.Retention / time.Second), AckPolicy: string(t.AckPolicy), Role: string(a.Notify.RoleIn(who, *t)),
		MayPublish: a.Notify.MayPublish(who, *t), Subscribers: subscribers, Version: t.Version, CreatedAt: stamp(t.Created), UpdatedAt: stamp(t.Updated),
	}
	if own != nil {
		s := a.subscription(ctx, own)
		out.Subscription = &s
	}
	if !out.MayPublish {
		return out
	}
	out.Devices = t.Devices
	if len(t.Escalation.Steps) > 0 {
		out.Escalation = escalationOf(t.Escalation)
	}
	for _, s := range t.Sources {
		out.Sources = append(out.Sources, topicSource{s.Types, s.Query, s.Severity.String(), s.Clears, s.Title})
	}
	if t.Template != (notify.Template{}) {
		template := topicTemplate(t.Template)
		out.Template = &template
	}
	return out
}

func escalationOf(e notify.Escalation) *topicEscalation {
	out := topicEscalation{Steps: make([]topicStep, len(e.Steps)), Repeat: e.Repeat}
	for i, s := range e.Steps {
		step := topicStep{AfterS: int64(s.After / time.Second), Channels: s.Channels}
		for _, to := range s.To {
			step.To = append(step.To, subjectText(notify.Subject(to)))
		}
		out.Steps[i] = step
	}
	return &out
}

func (e *topicEscalation) read() (notify.Escalation, error) {
	out := notify.Escalation{Repeat: e.Repeat}
	for _, s := range e.Steps {
		to, err := parseSubjects(s.To)
		if err != nil {
			return out, faultAt("#/escalation", err)
		}
		step := notify.Step{After: time.Duration(s.AfterS) * time.Second, Channels: s.Channels}
		for _, subject := range to {
			step.To = append(step.To, string(subject))
		}
		out.Steps = append(out.Steps, step)
	}
	return out, nil
}

func readSources(list []topicSource) ([]notify.Source, error) {
	out := make([]notify.Source, len(list))
	for i, s := range list {
		severity, err := notify.ParseSeverity(s.Severity)
		if err != nil {
			return nil, faultAt("#/sources", err)
		}
		out[i] = notify.Source{Types: s.Types, Query: s.Q, Severity: severity, Clears: s.Clears, Title: s.Title}
	}
	return out, nil
}

// madeTopic is the answer to who makes a topic: 201, or 200 for one that was there.
type madeTopic struct {
	Status   int
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     topic
}

func (a *API) createTopic(ctx context.Context, in *body[newTopic]) (*madeTopic, error) {
	b := &in.Body
	spec := notify.TopicSpec{
		Name: b.Name, Title: b.Title, Description: b.Description, Owner: b.Owner, Visibility: notify.Visibility(b.Visibility), Status: notify.Status(b.Status),
		Retention: time.Duration(b.RetentionS) * time.Second, AckPolicy: notify.AckPolicy(b.AckPolicy), Devices: b.Devices, IfAbsent: b.IfAbsent,
	}
	var err error
	if b.Escalation != nil {
		if spec.Escalation, err = b.Escalation.read(); err != nil {
			return nil, err
		}
	}
	if spec.Sources, err = readSources(b.Sources); err != nil {
		return nil, err
	}
	if b.Template != nil {
		spec.Template = notify.Template(*b.Template)
	}
	who := a.asking(ctx)
	t, made, err := a.Notify.CreateTopic(ctx, who, spec)
	if err != nil {
		return nil, err
	}
	shown, err := a.topics(ctx, who, []notify.Topic{t})
	if err != nil {
		return nil, err
	}
	out := &madeTopic{http.StatusCreated, prefix + "/topics/" + t.ID, versionTag(t.Version), shown[0]}
	if !made {
		out.Status = http.StatusOK
	}
	return out, nil
}

func (a *API) changeTopic(ctx context.Context, in *struct {
	TopicPath
	Conditions
	Body changedTopic
},
) (*body[topic], error) {
	b := &in.Body
	c := notify.TopicChange{Name: b.Name, Title: b.Title, Description: b.Description, Owner: b.Owner, Devices: b.Devices}
	c.Visibility, c.Status, c.AckPolicy = (*notify.Visibility)(b.Visibility), (*notify.Status)(b.Status), (*notify.AckPolicy)(b.AckPolicy)
	if b.RetentionS != nil {
		retention := time.Duration(*b.RetentionS) * time.Second
		c.Retention = &retention
	}
	if b.Escalation != nil {
		e, err := b.Escalation.read()
		if err != nil {
			return nil, err
		}
		c.Escalation = &e
	}
	if b.Sources != nil {
		s, err := readSources(b.Sources)
		if err != nil {
			return nil, err
		}
		c.Sources = &s
	}
	c.Template = (*notify.Template)(b.Template)
	ctx, err := bound(ctx, in.Conditions, topicTag)
	if err != nil {
		return nil, err
	}
	t, err := a.Notify.ChangeTopic(ctx, a.asking(ctx), in.Topic, c)
	if err != nil {
		return nil, err
	}
	return a.topicAnswer(ctx, t)
}
