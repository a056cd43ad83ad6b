package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// object is a piece of a document.
type object = map[string]any

// mqttTopic is one topic of the contract with devices, as seen from a device.
type mqttTopic struct {
	name, address string // parameters in braces; {key} may have many levels
	up, down      bool   // the device publishes, the device subscribes
	title, text   string
	schema        object
	example       any
	contentType   string // application/json when empty
}

// mqttTopics is the contract of DESIGN section 4; docs/mqtt.md and its neighbours tell it to people.
func mqttTopics() []mqttTopic {
	text, anyJSON := object{"type": "string"}, object{"description": "Any JSON value"}
	document := object{"type": "object", "additionalProperties": true}
	fields := func(required string, properties object) object {
		return object{"type": "object", "properties": properties, "required": strings.Fields(required)}
	}
	whole, stampSchema := object{"type": "integer", "minimum": 0}, object{"type": "string", "format": "date-time"}
	problem := fields("title status code detail", object{"title": text, "status": object{"type": "integer"}, "code": text, "detail": text})
	return append(append(notifyTopics(fields), firmwareTopics(fields)...), []mqttTopic{
		{
			name: "telemetry", address: "devices/{id}/telemetry", up: true, title: "Telemetry",
			text:   "Values, flat or nested; {\"ts\",\"values\"} and arrays of either too. SenML, CBOR and line protocol by content type or profile.",
			schema: object{"type": []any{"object", "array"}}, example: object{"temperature": 21.5, "door.open": false},
		},
		{
			name: "telemetryKey", address: "devices/{id}/telemetry/{key}", up: true, title: "Telemetry of one key",
			text:   "A bare scalar takes its key from the topic's tail, which may have many levels.",
			schema: object{"type": []any{"number", "boolean", "string", "object", "array", "null"}}, example: 21.5,
		},
		{
			name: "reported", address: "devices/{id}/reported", up: true, title: "Reported document",
			text: "A JSON merge patch (RFC 7396) of what the device says it is.", schema: document, example: object{"interval_s": 60, "old": nil},
		},
		{
			name: "desired", address: "devices/{id}/desired", down: true, title: "Desired document", text: "Whole, on subscribing and on each change.",
			schema: fields("version state", object{"version": whole, "state": document}), example: object{"version": 7, "state": object{"interval_s": 60}},
		},
		{
			name: "command", address: "devices/{id}/commands/{cid}", down: true, title: "Command", text: "MQTT 5 carries Response Topic and Correlation Data besides.",
			schema:  fields("method", object{"method": text, "params": anyJSON, "expires_at": stampSchema}),
			example: object{"method": "reboot", "params": object{"delay_s": 5}, "expires_at": "2026-03-01T08:40:00Z"},
		},
		{
			name: "commandResult", address: "devices/{id}/commands/{cid}/result", up: true, title: "Result of a command",
			schema: fields("status", object{
				"status": object{"type": "string", "enum": []any{"accepted", "progress", "ok", "error"}}, "progress": object{"type": "number"}, "result": anyJSON, "error": anyJSON,
			}),
			example: object{"status": "ok", "result": object{"uptime_s": 0}},
		},
		{
			name: "event", address: "devices/{id}/events/{type}", up: true, title: "Event", text: "Something that happened, kept by type.", schema: anyJSON,
			example: object{"open": true},
		},
		{
			name: "logs", address: "devices/{id}/logs", up: true, title: "Log lines", text: "One, or an array; levelled and rate limited.",
			schema: object{"type": []any{"object", "array", "string"}}, example: object{"level": "info", "text": "valve opened"},
		},
		{
			name: "presence", address: "devices/{id}/presence", down: true, title: "Presence, retained",
			schema: fields("state since reason", object{
				"state": object{"type": "string", "enum": []any{"online", "quiet", "offline", "never", "unknown"}}, "since": stampSchema, "reason": text,
			}),
			example: object{"state": "online", "since": "2026-03-01T08:30:00Z", "reason": ""},
		},
		{
			name: "errors", address: "devices/{id}/errors", down: true, title: "Why a message was rejected", contentType: problemType, schema: problem, example: exampleTopicProblem(),
		},
		{
			name: "provisionRequest", address: "provision/request", up: true, title: "Registration of itself",
			schema: document, example: object{"profile_key": "EXAMPLE-key", "profile_secret": "EXAMPLE-secret-0123", "id": "pump-7"},
		},
		{
			name: "provisionResponse", address: "provision/response", down: true, title: "Answer to a registration",
			schema: document, example: object{"status": "SUCCESS", "id": "pump-7", "credential": "token", "token": "tok_EXAMPLEexample0123"},
		},
	}...)
}

// notifyTopics are those of notifications.
func notifyTopics(fields func(string, object) object) []mqttTopic {
	text, document, stampSchema := object{"type": "string"}, object{"type": "object", "additionalProperties": true}, object{"type": "string", "format": "date-time"}
	severity := object{"type": "string", "enum": []any{"info", "warning", "major", "critical"}}
	actions := object{"type": "array", "maxItems": 5, "items": fields("label url", object{"label": text, "url": text})}
	return []mqttTopic{
		{
			name: "notify", address: "devices/{id}/notify/{topic}", up: true, title: "Notification from the device",
			text: "To a topic whose devices query selects the device, by name or id; severity is info when it is absent. The PUBACK comes when it is stored. " +
				"Beyond 30 at once and one more every 2 seconds MQTT 5 gets 0x97; earlier clients are told at devices/{id}/errors.",
			schema: fields("title", object{
				"title": text, "body": text, "severity": severity, "priority": object{"type": "string", "enum": []any{"urgent", "normal", "bulk"}}, "data": document,
				"link": text, "actions": actions, "device": text, "dedup_key": text, "resolve": object{"type": "boolean"}, "expires_at": stampSchema,
			}),
			example: object{"title": "The door is open", "severity": "major", "dedup_key": "door", "data": object{"hall": 3}},
		},
		{
			name: "notification", address: "devices/{id}/notifications", down: true, title: "Notification for the device",
			text: "With QoS 1, at once or when the device comes back, to a device that is subscribed to a topic. It may come twice: id is the same.",
			schema: fields("id topic severity title state ack created_at", object{
				"id": text, "topic": text, "severity": severity, "title": text, "body": text, "data": document, "link": text, "actions": actions, "device": text,
				"state":      object{"type": "string", "enum": []any{"open", "acked", "resolved"}},
				"ack":        object{"type": "boolean", "description": "An answer at .../notifications/{nid}/ack is asked for"},
				"created_at": stampSchema, "expires_at": stampSchema,
			}),
			example: object{
				"id": "ntf_0m8k2c1x5tq", "topic": "cold-chain", "severity": "major", "title": "The door is open", "data": object{"hall": 3}, "device": "pump-7",
				"state": "open", "ack": true, "created_at": "2026-03-01T08:30:00Z",
			},
		},
		{
			name: "notificationAck", address: "devices/{id}/notifications/{nid}/ack", up: true, title: "The device's answer",
			text: "An empty payload is an ack.",
			schema: object{"type": "object", "properties": object{
				"state": object{"type": "string", "enum": []any{"seen", "read", "acked"}}, "note": text,
			}},
			example: object{"state": "acked", "note": "closed it"},
		},
	}
}

func exampleTopicProblem() any {
	return object{"title": "Unprocessable Entity", "status": 422, "code": "invalid", "detail": "the payload is not JSON"}
}

// asyncRoute serves the document.
func (a *API) asyncRoute() error {
	text, err := json.Marshal(asyncAPI(a.Version))
	if err != nil {
		return fmt.Errorf("write the AsyncAPI document: %w", err)
	}
	a.mux.HandleFunc("GET /api/asyncapi.json", func(w http.ResponseWriter, _ *http.Request) { writeBody(w, "application/json", text) })
	return nil
}

// asyncAPI returns the AsyncAPI 3.0 document of the MQTT side. Its operations are the server's:
// it receives what devices send.
func asyncAPI(version string) object {
	channels, operations, messages := object{}, object{}, object{}
	for _, t := range mqttTopics() {
		contentType := t.contentType
		if contentType == "" {
			contentType = "application/json"
		}
		message := object{"name": t.name, "title": t.title, "contentType": contentType, "payload": t.schema}
		if t.example != nil {
			message["examples"] = []any{object{"payload": t.example}}
		}
		messages[t.name] = message
		channel := object{
			"address": t.address, "title": t.title, "messages": object{t.name: object{"$ref": "#/components/messages/" + t.name}},
		}
		if t.text != "" {
			channel["description"] = t.text
		}
		if p := topicParameters(t.address); len(p) > 0 {
			channel["parameters"] = p
		}
		channels[t.name] = channel
		for action, there := range map[string]bool{"receive": t.up, "send": t.down} {
			if there {
				operations[action+strings.ToUpper(t.name[:1])+t.name[1:]] = object{
					"action": action, "channel": object{"$ref": "#/channels/" + t.name}, "title": t.title,
				}
			}
		}
	}
	return object{
		"asyncapi": "3.0.0",
		"info": object{
			"title": "Muster over MQTT", "version": version,
			"description": "What devices send and are sent, over MQTT 3.1.1 and 5. A device may write `me` for its own id. All other topics are a normal broker's, within the client's rights.",
		},
		"defaultContentType": "application/json",
		"servers": object{
			"tcp": object{"host": "{host}:1883", "protocol": "mqtt", "variables": object{"host": object{"default": "localhost"}}, "security": []any{object{"$ref": "#/components/securitySchemes/token"}, object{"$ref": "#/components/securitySchemes/secret"}}},
			"tls": object{"host": "{host}:8883", "protocol": "mqtts", "variables": object{"host": object{"default": "localhost"}}, "security": []any{object{"$ref": "#/components/securitySchemes/certificate"}}},
			"ws":  object{"host": "{host}:8080", "pathname": "/mqtt", "protocol": "ws", "variables": object{"host": object{"default": "localhost"}}},
		},
		"channels": channels, "operations": operations,
		"components": object{"messages": messages, "securitySchemes": object{
			"token":       object{"type": "userPassword", "description": "A device's token as the user name, no password"},
			"secret":      object{"type": "userPassword", "description": "A device's id as the user name, its secret as the password"},
			"certificate": object{"type": "X509", "description": "A pinned certificate, or one of a registered authority"},
		}},
	}
}

// topicParameters describes what stands in braces in a topic.
func topicParameters(address string) object {
	words := map[string]string{
		"id":   "The device, [A-Za-z0-9._:-], at most 128 characters; me is the connected one",
		"key":  "A telemetry key; levels become dots",
		"cid":  "The command",
		"type": "The event's type", "offset": "Byte offset in the image", "nid": "The notification", "topic": "The topic that is told, by name or id",
	}
	out := object{}
	for level := range strings.SplitSeq(address, "/") {
		if name, ok := strings.CutPrefix(level, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			out[name] = object{"description": words[name]}
		}
	}
	return out
}
