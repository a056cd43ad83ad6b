package api

// exampleTime is when everything in the examples happens.
const exampleTime = "2026-03-01T08:30:00.000000Z"

// vocabulary has an example for the properties of the schemas, by "Schema.property" or by
// "property" for those that mean the same everywhere, and for parameters by "place name".
// Examples of whole answers are made of them, so that one device is told of throughout.
func vocabulary() map[string]any {
	return map[string]any{
		"{}": "text",
		// parameters
		"path device": "pump-7", "path profile": "pump", "path group": "cold-chain", "path account": "svc_5f0c", "path key": "key_9d3e",
		"path credential": "cred_41aa", "path authority": "ca_77b1", "path candidate": "cand_c0de", "path block": "block_0001", "path command": "184467",
		"path job": "1844", "path seq": 42, "query q": "group:cold-chain v.battery<15", "query keys": "temperature,battery", "query from": "now-3h",
		"query to": "now", "query sort": "-seen", "header If-Match": `"7"`, "header Idempotency-Key": "restart-pump-7-1",
		// names and ids
		"id": "pump-7", "device": "pump-7", "name": "Pump 7", "description": "Pumps of the cold chain", "notes": "behind the second door", "text": "valve opened",
		"profile": "pump", "parent": "gateway-1", "group": "cold-chain", "groups": []any{"cold-chain"}, "add_groups": []any{"cold-chain"}, "drop_groups": []any{"spare"},
		"ids": []any{"pump-7", "pump-8"}, "tags": map[string]any{"site": "berlin"}, "firmware": "1.4.2", "account": "telegraf", "client_id": "pump-7-a1",
		"label": "made in the factory", "Location.label": "hall 3", "username": "pump-7", "subject": "CN=pump-7", "ca": "ca_77b1", "candidate": "cand_c0de",
		"AdoptionKey.id": "ak_3c1f", "AdoptionKey.name": "hall 3", "ApiKey.id": "key_9d3e", "ApiKey.name": "reports", "Authority.id": "ca_77b1", "Authority.name": "factory",
		"ServiceAccount.id": "svc_5f0c", "ServiceAccount.name": "telegraf", "Credential.id": "cred_41aa", "Issued.id": "cred_41aa", "CommandBody.id": "184467",
		"JobBody.id": "1844", "Candidate.id": "cand_c0de", "BlockedClient.id": "block_0001", "AuditActor.id": "key_9d3e", "AuditActor.name": "reports",
		"Group.name": "cold-chain", "Profile.name": "pump", "Me.name": "reports", "adoption_key": "ak_3c1f", "job": "1844", "command": "184467", "created_by": "key_9d3e",
		"request": "KX3PBZQW7J", "by": "key_9d3e", "url": "https://muster.example/claim?code=ABCD-EFGH", "code": "ABCD-EFGH", "Problem.code": "not_found", "Rejected.code": "bad_payload",
		"Traced.code": "bad_payload", "title": "Not Found", "detail": "what went wrong, for people", "pointer": "#/name", "parameter": "query.limit",
		// secrets, made for the examples
		"token": "tok_EXAMPLEexample0123", "secret": "EXAMPLE-secret-0123456789", "password": "EXAMPLE-secret-0123456789", "key": "mst_EXAMPLEexample012345",
		"profile_key": "EXAMPLE-key", "profile_secret": "EXAMPLE-secret-0123", "fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		"key_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "verification_code": "EXAMPLE-code", "certificate": "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n",
		"png": "iVBORw0KGgo=", "svg": "<svg/>", "csr": "",
		// rights
		"scopes": []any{"devices:read", "telemetry:read"}, "publish": []any{"plant/+/state"}, "subscribe": []any{"plant/#"}, "role": "operator",
		"action": "device.update", "object": "devices/pump-7", "before": map[string]any{"name": "Pump"}, "after": map[string]any{"name": "Pump 7"},
		// what is wanted and done
		"method": "reboot", "params": map[string]any{"delay_s": 5}, "result": map[string]any{"uptime_s": 0}, "error": nil, "JobTarget.error": "the device is gone",
		"patch": map[string]any{"interval_s": 60}, "TwinLevel.state": map[string]any{"interval_s": 60}, "TwinSide.state": map[string]any{"interval_s": 60},
		"DesiredBody.state": map[string]any{"interval_s": 60}, "level": "group:cold-chain", "diverged": []any{"interval_s"},
		"winners": map[string]any{"interval_s": "group:cold-chain"}, "q": "group:cold-chain", "query": "v.battery<15", "next": nil, "waves": []any{1, 10},
		// what was said
		"value": 21.5, "values": map[string]any{"temperature": 21.5}, "Latest.values": map[string]any{"temperature": map[string]any{"value": 21.5, "time": exampleTime, "arrival": exampleTime}},
		"topic": "devices/pump-7/telemetry", "payload": "eyJ0ZW1wZXJhdHVyZSI6", "payload_text": `{"temperature":`, "Event.payload": map[string]any{"open": true}, "json": map[string]any{"temperature": 21.5},
		"hex": "7b7d", "fields": map[string]any{"valve": 2}, "Event.type": "door", "reason": "the payload is not JSON", "LogLine.level": "info",
		"peer": "192.0.2.7:51023", "address": "192.0.2.7", "listener": "tcp", "Client.protocol": 5, "Connection.protocol": 5, "seq": 42, "version": "1.0.0",
		// accounts, webhooks, tasks
		"email": "ana@muster.example", "User.id": "usr_2b7a", "User.name": "Ana", "uri": "otpauth://totp/Muster:ana@muster.example?secret=EXAMPLE", "invitation": "https://muster.example/invite/EXAMPLE", "link": "https://muster.example/reset/EXAMPLE",
		"Webhook.id": "wh_6d01", "owner": "usr_2b7a", "owner_name": "Ana", "problem": "the receiver answered 410", "types": []any{"device.*", "command.failed"}, "summary": "A device was made",
		"WebhookAttempt.error": "the receiver answered 500", "response": "Internal Server Error", "TaskResult.result": map[string]any{"url": "/api/v1/tasks/task_8f20/result", "content_type": "image/png", "size": 2048, "expires_at": exampleTime}, "TaskBody.id": "task_8f20", "TaskBody.note": "pumps of the cold chain",
		"SignInMethod.name": "Company", "start": "/api/v1/session/oidc",
		"selector": "tag:site=berlin", "agent": "Mozilla/5.0", "api_key": "key_9d3e", "user": "usr_2b7a", "scope": "devices:write", "message": "line 2: there is no device pump-9", "RefusedMessage.code": "unknown_device", "door": "/api/v1/devices:import",
		"sections": map[string]any{"ingest": map[string]any{"queued": 0}}, "part": "store", "lat": 52.52, "lon": 13.4,
	}
}

// requestExamples has an example of a request's JSON body, by operation.
func requestExamples() map[string]string {
	const desired = `{"interval_s":60}`
	return map[string]string{ //nolint:gosec // the secrets are examples
		"start-task":                     `{"kind":"identicon","input":{"subject":"pump-7"}}`,
		"sign-in":                        `{"key":"mst_EXAMPLEexample012345"}`,
		"create-api-key":                 `{"name":"reports","scopes":["devices:read","telemetry:read"]}`,
		"create-service-account":         `{"name":"telegraf","publish":["plant/+/state"],"subscribe":["plant/#"]}`,
		"change-service-account":         `{"subscribe":["plant/#"]}`,
		"create-device":                  `{"id":"pump-7","name":"Pump 7","tags":{"site":"berlin"}}`,
		"change-device":                  `{"name":"Pump 7","tags":{"site":"berlin"}}`,
		"add-credential":                 `{"kind":"token","label":"made in the factory"}`,
		"rotate-credential":              `{"overlap_s":3600}`,
		"update-devices":                 `{"q":"tag:site=berlin","profile":"default","dry_run":true}`,
		"delete-devices":                 `{"q":"tag:site=berlin","dry_run":true}`,
		"put-group":                      `{"description":"Pumps of the cold chain"}`,
		"put-profile":                    `{"level":"durable","message_rate":100}`,
		"send-command":                   `{"method":"reboot","params":{"delay_s":5},"ttl_s":600}`,
		"create-job":                     `{"q":"tag:site=berlin","kind":"command","method":"reboot","dry_run":true}`,
		"kick-client":                    `{"device":"pump-7","client_id":"pump-7-a1","reason":"maintenance"}`,
		"register-certificate-authority": `{"name":"factory","certificate":"-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n","proof":"none"}`,
		"verify-certificate-authority":   `{"certificate":"-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n"}`,
		"change-certificate-authority":   `{"name":"factory","jit":true}`,
		"put-provisioning":               `{"strategy":"create"}`,
		"provision":                      `{"profile_key":"EXAMPLE-key","profile_secret":"EXAMPLE-secret-0123","id":"pump-7"}`,
		"create-adoption-key":            `{"name":"hall 3"}`,
		"adopt-candidate":                `{"id":"pump-7","name":"Pump 7"}`,
		"make-claim-code":                `{"expires_s":3600}`,
		"claim-device":                   `{"code":"ABCD-EFGH"}`,
		"patch-fleet-desired":            desired, "put-fleet-desired": desired, "patch-profile-desired": desired, "put-profile-desired": desired,
		"patch-group-desired": desired, "put-group-desired": desired, "patch-device-desired": desired, "put-device-desired": desired,
	}
}

// requestTexts has an example of a request's body that is not JSON, by operation and type.
func requestTexts() map[string]string {
	return map[string]string{
		"import-devices text/csv":              "id,name\npump-7,Pump 7\npump-8,Pump 8\n",
		"write-telemetry application/json":     `[{"device":"pump-7","temperature":21.5},{"device":"pump-8","ts":1772353800000,"values":{"temperature":20.9}}]`,
		"write-telemetry application/x-ndjson": "{\"device\":\"pump-7\",\"temperature\":21.5}\n{\"device\":\"pump-8\",\"temperature\":20.9}\n",
		"write-influx-1 text/plain":            "air,host=pump-7 temperature=21.5,battery=88i 1772353800\n",
		"write-influx text/plain":              "air,device=pump-7 temperature=21.5,battery=88i 1772353800000000000\n",
		"import-devices application/x-ndjson":  "{\"id\":\"pump-7\",\"name\":\"Pump 7\"}\n{\"id\":\"pump-8\"}\n",
	}
}
