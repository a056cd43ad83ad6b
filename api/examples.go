package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
)

// exampleTime is when everything in the examples happens.
const exampleTime = "2026-03-01T08:30:00.000000Z"

const (
	exampleDigest    = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" // of exampleImage
	exampleImage     = "test"
	examplePublicKey = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAbedW775nH9m2naOrqB6Xr7dP+AK7ecCZpzFTyXqKnFA=\n-----END PUBLIC KEY-----\n"
)

func exampleActions() []any {
	return []any{map[string]any{"label": "Open the valve", "url": "https://muster.example/devices/pump-7"}}
}

// exampleManifest is one of exampleImage.
func exampleManifest() map[string]any {
	return map[string]any{
		"schema": 1, "product": "pump-controller", "version": "2.0.0", "security_version": 3, "type": "app",
		"hw_compat": []any{map[string]any{"board": "pc-1", "revisions": []any{"1.0"}}},
		"artifacts": []any{map[string]any{"filename": "pump.bin", "sha256": exampleDigest, "size": len(exampleImage), "format": "raw"}},
		"created":   "2026-03-01T08:30:00Z",
	}
}

// vocabulary has an example for the properties of the schemas, by "Schema.property" or by
// "property" for those that mean the same everywhere, and for parameters by "place name".
// Examples of whole answers are made of them, so that one device is told of throughout.
func vocabulary() map[string]any {
	all := deviceWords()
	maps.Copy(all, notifyWords())
	maps.Copy(all, firmwareWords())
	return all
}

func deviceWords() map[string]any {
	return map[string]any{
		"{}": "text",
		// parameters
		"path device": "pump-7", "path profile": "pump", "path group": "cold-chain", "path account": "svc_5f0c", "path key": "key_9d3e",
		"path credential": "cred_41aa", "path authority": "ca_77b1", "path candidate": "cand_c0de", "path stream": "5f0c41aa9d3e77b1", "path block": "block_0001", "path command": "184467",
		"path job": "1844", "path seq": 42, "query q": "group:cold-chain v.battery<15", "query keys": "temperature,battery", "query from": "now-3h",
		"query to": "now", "query sort": "-seen", "query fields": "status,tag:site", "query match": "ber", "query columns": "id,status,v.temperature", "query ids": "pump-7,pump-8", "query key": "temperature", "header If-Match": `"7"`, "header Idempotency-Key": "restart-pump-7-1",
		// names and ids
		"id": "pump-7", "device": "pump-7", "name": "Pump 7", "description": "Pumps of the cold chain", "notes": "behind the second door", "text": "valve opened",
		"profile": "pump", "parent": "gateway-1", "group": "cold-chain", "groups": []any{"cold-chain"}, "add_groups": []any{"cold-chain"}, "drop_groups": []any{"spare"},
		"ids": []any{"pump-7", "pump-8"}, "tags": map[string]any{"site": "berlin"}, "firmware": "1.4.2", "account": "telegraf", "client_id": "pump-7-a1",
		"label": "made in the factory", "Location.label": "hall 3", "username": "pump-7", "subject": "CN=pump-7", "ca": "ca_77b1", "candidate": "cand_c0de",
		"AdoptionKey.id": "ak_3c1f", "AdoptionKey.name": "hall 3", "ApiKey.id": "key_9d3e", "ApiKey.name": "reports", "Authority.id": "ca_77b1", "Authority.name": "factory",
		"ServiceAccount.id": "svc_5f0c", "ServiceAccount.name": "telegraf", "Credential.id": "cred_41aa", "Issued.id": "cred_41aa", "CommandBody.id": "184467",
		"JobBody.id": "1844", "Candidate.id": "cand_c0de", "BlockedClient.id": "block_0001", "AuditActor.id": "key_9d3e", "AuditActor.name": "reports",
		"Group.name": "cold-chain", "Profile.name": "pump", "Me.name": "reports", "adoption_key": "ak_3c1f", "job": "1844", "command": "184467", "created_by": "key_9d3e",
		"request": "KX3PBZQW7J", "by": "key_9d3e", "url": "https://muster.example/claim?code=ABCD-EFGH", "code": "ABCD-EFGH", "Problem.code": "not_found", "ProblemChange.name": "Ana", "ProblemChange.at": exampleTime, "Rejected.code": "bad_payload",
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
		"value": 21.5, "values": map[string]any{"temperature": 21.5}, "Latest.values": map[string]any{"temperature": map[string]any{"value": 21.5, "time": exampleTime, "arrival": exampleTime}}, "ChartKey.t": []any{1772353800000}, "ChartKey.min": []any{21.4}, "ChartKey.max": []any{21.6}, "ChartKey.gaps": []any{[]any{1772353800000, 1772354280000}}, "ChartKey.key": "temperature", "Publication.topic": "display/text", "Publication.payload": nil, "Publication.payload_text": "on my way", "Simulation.devices": 25, "NewSimulation.devices": 25, "Simulation.running": true, "topic": "devices/pump-7/telemetry", "payload": "eyJ0ZW1wZXJhdHVyZSI6", "payload_text": `{"temperature":`, "Event.payload": map[string]any{"open": true}, "json": map[string]any{"temperature": 21.5},
		"hex": "7b7d", "fields": map[string]any{"valve": 2}, "Event.type": "door", "reason": "the payload is not JSON", "LogLine.level": "info",
		"peer": "192.0.2.7:51023", "address": "192.0.2.7", "listener": "tcp", "Client.protocol": 5, "Connection.protocol": 5, "seq": 42, "version": "1.0.0",
		// accounts, webhooks, tasks
		"email": "ana@muster.example", "User.id": "usr_2b7a", "User.name": "Ana", "uri": "otpauth://totp/Muster:ana@muster.example?secret=EXAMPLE", "invitation": "https://muster.example/invite/EXAMPLE", "link": "https://muster.example/reset/EXAMPLE",
		"Webhook.id": "wh_6d01", "owner": "usr_2b7a", "owner_name": "Ana", "problem": "the receiver answered 410", "types": []any{"device.*", "command.failed"}, "summary": "A device was made",
		"WebhookAttempt.error": "the receiver answered 500", "response": "Internal Server Error", "TaskResult.result": map[string]any{"url": "/api/v1/tasks/task_8f20/result", "content_type": "image/png", "size": 2048, "expires_at": exampleTime}, "TaskBody.id": "task_8f20", "TaskBody.note": "pumps of the cold chain",
		"SignInMethod.name": "Company", "start": "/api/v1/session/oidc",
		"selector": "tag:site=berlin", "agent": "Mozilla/5.0", "api_key": "key_9d3e", "user": "usr_2b7a", "scope": "devices:write", "message": "line 2: there is no device pump-9", "RefusedMessage.code": "unknown_device", "door": "/api/v1/devices:import", "path view": "view_4k2w7q3n5x6z2ab3", "SavedView.id": "view_4k2w7q3n5x6z2ab3", "SavedView.name": "Cold and low", "SavedView.q": "group:cold-chain v.battery<15", "columns": []any{"id", "status", "v.battery"}, "sort": "-seen", "Facet.field": "tag:site", "FacetValue.value": "berlin", "FacetValue.term": "tag:site=berlin", "QueryPart.term": "v.battery<15", "Sparklines.key": "temperature", "min": []any{20.9, nil}, "max": []any{21.5, nil},
		"FleetCause.kind": "gateway", "FleetCause.name": "gateway-1", "FleetCause.state": "offline", "FleetCause.devices": 411, "FleetCause.together": 411, "FleetChange.silent": 415,
		"sections": map[string]any{"ingest": map[string]any{"queued": 0}}, "part": "store", "lat": 52.52, "lon": 13.4,
	}
}

// notifyWords are those of topics and notifications.
func notifyWords() map[string]any {
	return map[string]any{
		"path topic": "cold-chain", "path principal": "usr_2b7a", "path subject": "me", "path notification": "ntf_0m8k2c1x5tq", "path delivery": "dlv_0m8k2c1x5tq",
		"Topic.name": "cold-chain", "Topic.title": "Cold chain", "topic_name": "cold-chain", "Notification.topic": "top_3e9d", "Subscription.topic": "top_3e9d", "Topic.version": 3,
		"Notification.version": 1, "Subscription.version": 1, "Subscription.name": "Ana", "Member.name": "Ana", "Receipt.name": "Ana", "Member.principal": "usr_2b7a",
		"Topic.description": "What happens to what must stay cold", "Topic.role": "owner", "Member.role": "publisher", "to": []any{"usr_2b7a"}, "channels": []any{"email"}, "Topic.devices": "group:cold-chain",
		"TopicSource.types": []any{"presence.offline"}, "clears": []any{"presence.online"}, "mail_subject": "{{.Title}}", "mail_text": "{{.Body}}", "Preview.mail_subject": "Pump 7 is offline",
		"Preview.mail_text": "It was last heard 10 minutes ago.\n", "Preview.webhook": map[string]any{"text": "Pump 7 is offline"}, "webhook": `{"text":{{json .Title}}}`, "TopicSource.title": "{{.Device}} is away",
		"Subscription.channels": []any{map[string]any{"channel": "email", "severity": "warning"}}, "quiet": map[string]any{"from": "22:00", "to": "07:00", "zone": "Europe/Berlin", "except": "critical"},
		"Notification.id": "ntf_0m8k2c1x5tq", "Notification.title": "Pump 7 is offline", "body": "It was last heard 10 minutes ago.", "data": map[string]any{"reason": "keep alive ran out"},
		"Notification.link": "https://muster.example/devices/pump-7", "Notification.actions": exampleActions(), "NewNotification.actions": exampleActions(), "dedup_key": "offline pump-7",
		"acked_by": "Ana", "ack_note": "I am on my way", "note": "I am on my way", "NotificationSenderOf.id": "usr_2b7a", "NotificationSenderOf.name": "Ana", "Receipt.notification": "ntf_0m8k2c1x5tq",
		"missing": []any{}, "not_subscribed": []any{}, "Delivery.id": "dlv_0m8k2c1x5tq", "channel": "email", "queue": "email", "target": "usr_2b7a", "target_name": "Ana", "Delivery.notification": "ntf_0m8k2c1x5tq",
		"Delivery.error": "the mail server is not reachable", "Attempt.error": "the mail server is not reachable", "Attempt.response": "451 try again later", "reference": "<9f86d081884c7d65@muster.example>",
		"requeued": []any{"dlv_0m8k2c1x5tq"}, "Topic.id": "top_3e9d",
	}
}

// firmwareWords are those of images, releases and rollouts.
func firmwareWords() map[string]any {
	return map[string]any{
		"path sha256": exampleDigest, "path upload": exampleDigest, "path release": "rel_J7WQ2VZKPN4XA3MBTCYHD5RE6U", "path signing_key": "a53013b1ad3cd1f73ef79a5a4e0ea3b1",
		"query sha256": exampleDigest, "query filename": "pump.bin", "query product": "pump-controller",
		"sha256": exampleDigest, "sha1": "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3", "md5": "098f6bcd4621d373cade4e832627b4f6", "FirmwareArtifact.size": 4, "FirmwareUpload.size": 4, "filename": "pump.bin",
		"FirmwareImage.format": "raw", "FirmwareImage.version": "2.0.0", "FirmwareImage.hardware": []any{"1.0"}, "FirmwareUpload.id": exampleDigest, "FirmwareUpload.offset": 4,
		"FirmwareRelease.id": "rel_J7WQ2VZKPN4XA3MBTCYHD5RE6U", "FirmwareRelease.version": "2.0.0", "FirmwareRelease.channel": "stable", "FirmwareRelease.notes": "Starts faster",
		"FirmwareRelease.reason": "it does not start on revision 1.2", "FirmwareRelease.problem": "the manifest has 1 good signatures of keys that count, 2 are needed",
		"manifest": exampleManifest(), "FirmwareSignature.key": "a53013b1ad3cd1f73ef79a5a4e0ea3b1", "revision": 2, "published_by": "usr_2b7a", "ended_by": "usr_2b7a",
		"sig": "oyMDk2tI3Yv0eW8u1Zr8p0JtS3lq5oYxJvGm4l3mWbW9b0f7JrQ0x5pZC5dF3nXW1q9pG0fQm8mJ0x2y6m0TAw==", "FirmwareKey.id": "a53013b1ad3cd1f73ef79a5a4e0ea3b1", "FirmwareKey.name": "build server",
		"pem": examplePublicKey, "FirmwareKey.reason": "its medium was lost", "revoked_by": "usr_2b7a",
		// rollouts
		"path rollout": "rol_5QK2N7", "rollout": "rol_5QK2N7", "RolloutBody.id": "rol_5QK2N7", "RolloutProgress.id": "rol_5QK2N7", "RolloutBody.name": "Pumps 2.1", "FirmwareAction.name": "Pumps 2.1",
		"RolloutBody.release": "rel_8H3M1C", "FirmwareAction.release": "rel_8H3M1C", "rollback": "rel_7G2L0B", "product": "pump", "RolloutPerson.id": "usr_2b7a", "RolloutPerson.name": "Ana",
		"RolloutPhase.name": "canary", "RolloutPhaseProgress.name": "canary", "RolloutBody.note": "fixes the valve", "RolloutApproval.note": "seen", "states": map[string]any{"confirmed": 8, "rebooting": 2},
		"seed": "s3", "of": "", "RolloutReason.reason": "device_error", "RolloutReason.state": "failed", "RolloutDevice.reason": "", "FirmwareAction.reason": "", "RolloutDevice.detail": "", "FirmwareAction.detail": "",
		"RolloutDevice.from": "2.0.4", "FirmwareAction.from": "2.0.4", "RolloutRule.detail": "the maintenance window is closed", "RolloutRule.name": "window_open", "words": "The device waits: the maintenance window is closed.",
		"held": "window_open", "RolloutWhy.version": "2.0.4", "DeviceFirmware.version": "2.0.4", "FirmwareFile.size": 4194304,
		"FirmwarePatch.patch": map[string]any{"from": exampleDigest, "size": 120431, "sha256": exampleDigest}, "RolloutChange.event": "target_version", "RolloutChange.from": "installing", "RolloutChange.to": "rebooting",
		"RolloutProgress.reason": "", "RolloutChange.reason": "", "RolloutChange.detail": "", "RolloutPlan.zone": "Europe/Berlin", "RolloutRegression.key": "motor.current",
		"RolloutProgress.telemetry": `avg of "motor.current" is 2.1 on 8 updated devices and 2.0 on 40 others`,
	}
}

// requestExamples has an example of a request's JSON body, by operation.
func requestExamples() map[string]string {
	const desired = `{"interval_s":60}`
	text, err := json.Marshal(exampleManifest())
	if err != nil { // examples are plain data
		panic(fmt.Errorf("write an example: %w", err))
	}
	manifest := string(text)
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
		"create-view":                    `{"name":"Cold and low","q":"group:cold-chain v.battery<15","columns":["id","status","v.battery"],"sort":"-seen"}`,
		"put-view":                       `{"name":"Cold and low","q":"group:cold-chain v.battery<20"}`,
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
		"create-topic":                   `{"name":"cold-chain","title":"Cold chain","ack_policy":"any","if_absent":true}`,
		"change-topic":                   `{"title":"Cold chain"}`,
		"preview-template":               `{"template":{"mail_subject":"{{.Title}}","webhook":"{\"text\":{{json .Title}}}"}}`,
		"put-member":                     `{"role":"publisher"}`,
		"put-subscription":               `{"channels":[{"channel":"email","severity":"warning"}]}`,
		"send-notification":              `{"topic":"cold-chain","severity":"major","title":"Pump 7 is offline","dedup_key":"offline pump-7"}`,
		"mark-notifications":             `{"ids":["ntf_0m8k2c1x5tq"],"state":"seen"}`,
		"requeue-deliveries":             `{"ids":["dlv_0m8k2c1x5tq"]}`,
		"send-to-stream":                 `[{"t":"sub","id":2,"ch":"devices","q":"group:cold-chain","limit":50},{"t":"unsub","id":3,"ch":"fleet"}]`,
		"ack-notification":               `{"note":"I am on my way"}`,
		"read-inbox":                     `{"up_to":"ntf_0m8k2c1x5tq"}`,
		"begin-upload":                   `{"sha256":"` + exampleDigest + `","size":4,"filename":"pump.bin"}`,
		"create-release":                 `{"channel":"stable","notes":"Starts faster","manifest":` + manifest + `}`,
		"change-release":                 `{"notes":"Starts faster"}`,
		"revoke-release":                 `{"reason":"it does not start on revision 1.2"}`,
		"add-signing-key":                `{"name":"build server","pem":` + strconv.Quote(examplePublicKey) + `}`,
		"revoke-signing-key":             `{"reason":"its medium was lost"}`,
		"put-firmware-policy":            `{"threshold":2}`,
		"create-rollout":                 `{"name":"Pumps 2.1","release":"rel_8H3M1C","rollback":"rel_7G2L0B","q":"tag:site=berlin","plan":{"concurrent":50}}`,
		"change-rollout":                 `{"plan":{"concurrent":20,"windows":[{"from":"22:00","to":"04:00"}]}}`,
		"resume-rollout":                 `{"skip_phase":true}`,
		"abort-rollout":                  `{"force":false}`,
		"agree-to-rollout":               `{"note":"seen on the test bench"}`,
		"rollback-rollout":               `{"start":true}`,
		"replay-webhook":                 `{"since":"2026-03-01T08:30:00Z"}`,
		"patch-fleet-desired":            desired, "put-fleet-desired": desired, "patch-profile-desired": desired, "put-profile-desired": desired,
		"patch-group-desired": desired, "put-group-desired": desired, "patch-device-desired": desired, "put-device-desired": desired,
	}
}

// texts has an example of a request's body that is not JSON, by operation and type, and of
// answers likewise.
func texts() map[string]string {
	return map[string]string{
		"upload-artifact application/octet-stream": exampleImage,
		"append-upload application/octet-stream":   exampleImage,

		"import-devices text/csv":              "id,name\npump-7,Pump 7\npump-8,Pump 8\n",
		"write-telemetry application/json":     `[{"device":"pump-7","temperature":21.5},{"device":"pump-8","ts":1772353800000,"values":{"temperature":20.9}}]`,
		"write-telemetry application/x-ndjson": "{\"device\":\"pump-7\",\"temperature\":21.5}\n{\"device\":\"pump-8\",\"temperature\":20.9}\n",
		"write-influx-1 text/plain":            "air,host=pump-7 temperature=21.5,battery=88i 1772353800\n",
		"write-influx text/plain":              "air,device=pump-7 temperature=21.5,battery=88i 1772353800000000000\n",
		"import-devices application/x-ndjson":  "{\"id\":\"pump-7\",\"name\":\"Pump 7\"}\n{\"id\":\"pump-8\"}\n",

		"answer of import-devices application/x-ndjson": `{"made":{"line":2,"id":"pump-7","credential":{"id":"cred_41aa","kind":"token","token":"tok_EXAMPLEexample0123","username":"tok_EXAMPLEexample0123"}}}` + "\n" +
			`{"progress":{"done":2,"lines":2}}` + "\n" + `{"report":{"dry_run":false,"lines":2,"created":1,"updated":0,"same":1,"refused":0,"refusals":[]}}` + "\n",
		"answer of export-devices application/x-ndjson": `{"id":"pump-7","name":"Pump 7","profile":"pump","tags":{"site":"berlin"},"groups":["cold-chain"],"presence":"online","created_at":"` + exampleTime + "\"}\n",
		"answer of export-devices text/csv": "id,name,profile,parent,tags,groups,lat,lon,location,check_in_s,notes,firmware,status,last_seen,created_at\n" +
			"pump-7,Pump 7,pump,,site=berlin,cold-chain,,,,,,,online," + exampleTime + "," + exampleTime + "\n",
		"answer of get-telemetry application/x-ndjson": `{"time":"` + exampleTime + `","values":{"temperature":21.5,"battery":88}}` + "\n" +
			`{"time":"2026-03-01T08:31:00.000000Z","values":{"temperature":21.6}}` + "\n",
		"answer of get-telemetry text/csv": "time,temperature,battery\n" + exampleTime + ",21.5,88\n2026-03-01T08:31:00.000000Z,21.6,\n",
	}
}
