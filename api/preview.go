package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/notify"
)

// wordingFields are what a template can say; absent ones are as in the sample.
type wordingFields struct {
	Topic    *string         `json:"topic,omitempty" maxLength:"200" nullable:"false"`
	Title    *string         `json:"title,omitempty" maxLength:"200" nullable:"false"`
	Body     *string         `json:"body,omitempty" maxLength:"8192" nullable:"false"`
	Severity *string         `json:"severity,omitempty" enum:"info,warning,major,critical" nullable:"false"`
	State    *string         `json:"state,omitempty" enum:"open,acked,resolved" nullable:"false"`
	Sender   *string         `json:"sender,omitempty" maxLength:"200" nullable:"false"`
	Device   *string         `json:"device,omitempty" maxLength:"128" nullable:"false"`
	Link     *string         `json:"link,omitempty" maxLength:"2048" nullable:"false"`
	AckLink  *string         `json:"ack_link,omitempty" maxLength:"2048" nullable:"false"`
	Time     *string         `json:"time,omitempty" maxLength:"64" nullable:"false"`
	Data     json.RawMessage `json:"data,omitempty" doc:"An object"`
}

type previewed struct {
	Template topicTemplate  `json:"template"`
	Fields   *wordingFields `json:"fields,omitempty" doc:"What it is about; a sample where they are absent"`
}

type preview struct {
	MailSubject string          `json:"mail_subject"`
	MailText    string          `json:"mail_text"`
	Webhook     json.RawMessage `json:"webhook,omitempty" doc:"Absent without a template for it: webhooks get the event as it is"`
}

func (a *API) previewRoute() {
	route(a, accounts.TopicsWrite, huma.Operation{
		OperationID: "preview-template", Method: http.MethodPost, Path: "/topics:preview", Tags: []string{"topics"}, MaxBodyBytes: topicBytes,
		Metadata: map[string]any{unaudited: true}, Summary: "Show how a template words a notification",
		Description: "text/template over .Topic, .Title, .Body, .Severity, .State, .Sender, .Device, .Link, .AckLink, .Time and .Data, with the functions json, " +
			"upper and lower, without loops and variables. What the template leaves empty is in Muster's own words.",
	}, func(_ context.Context, in *body[previewed]) (*body[preview], error) {
		w, err := in.Body.Fields.wording()
		if err != nil {
			return nil, err
		}
		p, err := notify.PreviewTemplate(notify.Template(in.Body.Template), w)
		if err != nil {
			return nil, err
		}
		out := preview{MailSubject: p.MailSubject, MailText: p.MailText}
		if p.Webhook != "" {
			out.Webhook = json.RawMessage(p.Webhook)
		}
		return &body[preview]{out}, nil
	})
}

func (f *wordingFields) wording() (notify.Wording, error) {
	w := notify.SampleWording()
	if f == nil {
		return w, nil
	}
	for to, from := range map[*string]*string{
		&w.Topic: f.Topic, &w.Title: f.Title, &w.Body: f.Body, &w.Severity: f.Severity, &w.State: f.State, &w.Sender: f.Sender,
		&w.Device: f.Device, &w.Link: f.Link, &w.AckLink: f.AckLink, &w.Time: f.Time,
	} {
		if from != nil {
			*to = *from
		}
	}
	if len(f.Data) == 0 {
		return w, nil
	}
	w.Data = nil
	if err := json.Unmarshal(f.Data, &w.Data); err != nil {
		return w, faultAt("#/fields/data", muster.Errorf(muster.Invalid, "data is not a JSON object"))
	}
	return w, nil
}
