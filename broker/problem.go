package broker

import (
	"encoding/json"
	"net/http"

	"muster"
)

// problem is problem+json (RFC 9457) as devices get it at devices/{id}/errors.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Topic  string `json:"topic"`
}

func problemOf(r muster.Rejected) problem {
	p := problem{
		Type: "about:blank", Status: http.StatusUnprocessableEntity,
		Code: r.Code, Detail: r.Reason, Topic: r.Topic,
	}
	switch r.Code {
	case refusedTopic:
		p.Status = http.StatusForbidden
	case refusedTooLarge:
		p.Status = http.StatusRequestEntityTooLarge
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// TellRejected publishes at devices/{id}/errors, with QoS 0, why a message of a
// device was rejected. It never waits for the device, and does nothing when the
// broker does not run.
func (b *Broker) TellRejected(r muster.Rejected) {
	if r.Device == "" || !b.running() {
		return
	}
	body, err := json.Marshal(problemOf(r))
	if err != nil { // cannot be: strings and a number
		b.metrics.dropped.WithLabelValues("invalid").Inc()
		return
	}
	b.deliverSafely(&message{topic: deviceTopics + string(r.Device) + "/errors", payload: body, owned: true})
}
