package api

// firmwareTopics are those of firmware; docs/firmware-mqtt.md tells them to people.
func firmwareTopics(fields func(string, object) object) []mqttTopic {
	text, whole := object{"type": "string"}, object{"type": "integer", "minimum": 0}
	document := object{"type": "object", "additionalProperties": true}
	return []mqttTopic{
		{
			name: "firmware", address: "devices/{id}/firmware", down: true, title: "Firmware offer",
			text: "Signed for this device by the server's key, QoS 1, not retained; sent when it is offered, on subscribing and on coming back while it goes on, and when a device that has the image is to wait for its maintenance window, or may install.",
			schema: fields("device rollout action attempt state not_after manifest_sha256 manifest signatures files mqtt key sig", object{
				"device": text, "rollout": text, "action": whole, "attempt": whole, "state": text, "not_after": whole, "manifest_sha256": text, "manifest": document,
				"signatures": object{"type": "array", "items": document}, "files": object{"type": "array", "items": document}, "mqtt": document, "window": document, "key": text, "sig": text,
			}),
			example: object{
				"device": "pump-7", "rollout": "r1", "action": 257, "attempt": 1, "state": "offered", "not_after": 1772440200, "manifest_sha256": "9f86d081884c7d65",
				"manifest": object{"product": "pump", "version": "2.0.0"}, "signatures": []any{}, "files": []any{object{"filename": "pump.bin", "size": 4194304, "sha256": "9f86d081884c7d65"}},
				"mqtt": object{"max_len": 65536, "max_n": 8}, "window": object{"open": true, "closes": 1772424000}, "key": "a53013b1ad3cd1f7", "sig": "q80=",
			},
		},
		{name: "firmwareStatus", address: "devices/{id}/firmware/status", up: true, title: "Firmware status", schema: fields("action state", object{
			"action": whole, "attempt": whole, "seq": whole, "progress": whole, "error": text, "version": text,
			"state": object{"type": "string", "enum": []any{"downloading", "downloaded", "installing", "rebooting", "running", "failed", "denied", "canceled"}},
		}), example: object{"action": 257, "attempt": 1, "seq": 1, "state": "downloading", "progress": 40}},
		{name: "firmwareGet", address: "devices/{id}/firmware/get", up: true, title: "Ask for pieces of an image", schema: fields("action off len", object{
			"action": whole, "off": whole, "len": object{"type": "integer", "minimum": 256, "maximum": 65536}, "n": object{"type": "integer", "minimum": 1, "maximum": 8}, "file": whole,
		}), example: object{"action": 257, "off": 0, "len": 4096, "n": 8}},
		{name: "firmwareData", address: "devices/{id}/firmware/data/{offset}", down: true, title: "A piece of an image", schema: object{}, contentType: "application/octet-stream"},
		{name: "firmwareError", address: "devices/{id}/firmware/error", down: true, title: "A piece cannot be had", schema: fields("action off code detail", object{
			"action": whole, "off": whole, "code": text, "detail": text, "retry_after": whole,
		}), example: object{"action": 257, "off": 0, "code": "window", "detail": "16 pieces wait for the device already", "retry_after": 1}},
		{name: "firmwareCancel", address: "devices/{id}/firmware/cancel", down: true, title: "The offer is withdrawn", schema: fields("action attempt", object{"action": whole, "attempt": whole}), example: object{"action": 257, "attempt": 1}},
		{name: "firmwareCancelAck", address: "devices/{id}/firmware/cancel/ack", up: true, title: "The withdrawal is taken", schema: fields("action", object{"action": whole, "stopped": object{"type": "boolean"}}), example: object{"action": 257, "stopped": true}},
	}
}
