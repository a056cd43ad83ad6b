package feed

import (
	"slices"
	"strings"
)

// The types of events.
const (
	DeviceCreated           = "device.created"
	DeviceUpdated           = "device.updated"
	DeviceDeleted           = "device.deleted"
	DeviceCredentialAdded   = "device.credential_added"   //nolint:gosec // a name
	DeviceCredentialRemoved = "device.credential_removed" //nolint:gosec // a name
	DeviceAdopted           = "device.adopted"
	PresenceOnline          = "presence.online"
	PresenceQuiet           = "presence.quiet"
	PresenceOffline         = "presence.offline"
	CommandQueued           = "command.queued"
	CommandSent             = "command.sent"
	CommandDelivered        = "command.delivered"
	CommandAccepted         = "command.accepted"
	CommandSucceeded        = "command.succeeded"
	CommandFailed           = "command.failed"
	CommandExpired          = "command.expired"
	CommandCancelled        = "command.cancelled"
	JobStarted              = "job.started"
	JobPaused               = "job.paused"
	JobFinished             = "job.finished"
	JobAborted              = "job.aborted"
	TelemetryRejected       = "telemetry.rejected"
	TaskFinished            = "task.finished"
	DeliveryDead            = "delivery.dead"
	NotificationCreated     = "notification.created"
	NotificationAcked       = "notification.acked"
	NotificationResolved    = "notification.resolved"
	RolloutCreated          = "rollout.created"
	RolloutStarted          = "rollout.started"
	RolloutPaused           = "rollout.paused"
	RolloutResumed          = "rollout.resumed"
	RolloutPhase            = "rollout.phase"
	RolloutGate             = "rollout.gate"
	RolloutGateClosed       = "rollout.gate_closed"
	RolloutHeld             = "rollout.held"
	RolloutStopped          = "rollout.stopped"
	RolloutCompleted        = "rollout.completed"
	RolloutAborted          = "rollout.aborted"
	FirmwareImageWrong      = "firmware.image_wrong"
	WebhookTest             = "webhook.test"
)

// Kind describes one type of event.
type Kind struct {
	Type    string
	Summary string
	Sample  string // of its data, as JSON
}

// Catalogue returns every type there is, in groups.
func Catalogue() []Kind {
	return []Kind{
		{DeviceCreated, "A device was made, by whom ever", `{"device":"d1","name":"Pump 1","profile":"default"}`},
		{DeviceUpdated, "A device's name, profile, parent, labels or notes changed", `{"device":"d1","changed":["tags","groups"]}`},
		{DeviceDeleted, "A device was deleted; its data was kept or is being deleted", `{"device":"d1","data":"keep"}`},
		{DeviceCredentialAdded, "A device got a credential", `{"device":"d1","credential":"cred_x","kind":"token"}`},
		{DeviceCredentialRemoved, "A credential was revoked or ran out", `{"device":"d1","credential":"cred_x"}`},
		{DeviceAdopted, "A candidate of the adoption inbox became a device", `{"device":"d1"}`},
		{PresenceOnline, "A device is connected, or heard again", `{"device":"d1","state":"online","since":"2026-01-02T03:04:05Z","reason":"connected"}`},
		{PresenceQuiet, "A connected device says nothing for longer than its rhythm", `{"device":"d1","state":"quiet","since":"2026-01-02T03:04:05Z","reason":"silent for 10m0s"}`},
		{PresenceOffline, "A device is gone", `{"device":"d1","state":"offline","since":"2026-01-02T03:04:05Z","reason":"keep alive ran out"}`},
		{CommandQueued, "A command waits for its device", commandSample("queued")},
		{CommandSent, "A command was sent to its device", commandSample("sent")},
		{CommandDelivered, "A device acknowledged a command's message", commandSample("delivered")},
		{CommandAccepted, "A device began a command", commandSample("accepted")},
		{CommandSucceeded, "A device carried a command out", commandSample("succeeded")},
		{CommandFailed, "A device could not carry a command out", commandSample("failed")},
		{CommandExpired, "A command's time ran out", commandSample("expired")},
		{CommandCancelled, "A command was called back", commandSample("cancelled")},
		{JobStarted, "A job began", jobSample("running")},
		{JobPaused, "A job was paused, by a person or by its own rule", jobSample("paused")},
		{JobFinished, "A job is through", jobSample("finished")},
		{JobAborted, "A job was aborted, by a person or by its own rule", jobSample("aborted")},
		{TelemetryRejected, "A device sent what could not be kept; at most one a device and minute", `{"device":"d1","code":"bad_payload","detail":"the payload is not JSON"}`},
		{TaskFinished, "A long request ended", `{"task":"tsk_x","kind":"devices.import","state":"succeeded"}`},
		{DeliveryDead, "A mail, webhook or other delivery was given up", `{"delivery":"dlv_x","channel":"email","target":"usr_x","notification":"ntf_x","error":"the mail server refused the recipient (550)"}`},
		{NotificationCreated, "A notification was sent to a topic", notificationSample("open", "")},
		{NotificationAcked, "Somebody takes care of a notification, as its ack policy asks", notificationSample("acked", `,"acked_by":"Ann"`)},
		{NotificationResolved, "What a notification told of is over", notificationSample("resolved", "")},
		{RolloutCreated, "A rollout was written, as a draft or to start at once", rolloutSample("draft", "")},
		{RolloutStarted, "A rollout offers its release from now on", rolloutSample("running", "")},
		{RolloutPaused, "A rollout was paused, by a person or by its own rule", rolloutSample("paused", "operator")},
		{RolloutResumed, "A paused rollout goes on", rolloutSample("running", "")},
		{RolloutPhase, "A rollout began its next phase", rolloutSample("running", "")},
		{RolloutGate, "A phase is over, or has no device yet, and a person must approve before the next begins", rolloutSample("running", "")},
		{RolloutGateClosed, "Nobody has to approve any more: the next phase begins, the phase is not over after all, or the rollout stopped", rolloutSample("running", "")},
		{RolloutHeld, "A rollout's time has come, and it does not begin before more people have agreed to it", rolloutSample("scheduled", "approvals")},
		{RolloutStopped, "A rollout stopped itself, and is paused or aborted as its plan says; rollout.paused or rollout.aborted comes too", rolloutSample("paused", "failure_threshold")},
		{RolloutCompleted, "A rollout is through with all its devices", rolloutSample("completed", "")},
		{RolloutAborted, "A rollout was aborted, by a person or by its own rule", rolloutSample("aborted", "operator")},
		{FirmwareImageWrong, "An image on a server's disk is not what was uploaded any more, and is served to nobody; once for each change that a server finds", `{"sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}`},
		{WebhookTest, "Sent by the test button of a webhook", `{"webhook":"whk_x"}`},
	}
}

func commandSample(state string) string {
	return `{"device":"d1","command":"42","method":"reboot","state":"` + state + `","job":"7"}`
}

func jobSample(state string) string {
	return `{"job":"7","kind":"command","method":"reboot","query":"group:hall-3","state":"` + state +
		`","total":20,"succeeded":12,"failed":1,"expired":0,"cancelled":0}`
}

func notificationSample(state, more string) string {
	return `{"notification":"ntf_x","topic":"cold-chain","topic_id":"top_x","device":"d1","severity":"major","title":"Pump 1 is offline","state":"` + state +
		`","sender":"Muster","recipients":3` + more + `}`
}

func rolloutSample(status, reason string) string {
	if reason != "" {
		reason = `"reason":"` + reason + `",`
	}
	return `{"rollout":"rol_x","name":"Pumps 2.1","release":"rel_x","product":"pump","status":"` + status + `",` + reason +
		`"phase":"canary","phases":3,"phase_number":1,"devices":2000,"confirmed":8,"failing":2}`
}

// Reserved returns the families of types that are not sent yet, but may be asked for.
func Reserved() []string { return nil }

// KnownFilter says whether pattern can be asked for: "*", a type, or a family with ".*".
func KnownFilter(pattern string) bool {
	if pattern == "*" || slices.Contains(Reserved(), pattern) {
		return true
	}
	return slices.ContainsFunc(Catalogue(), func(k Kind) bool { return Matches(pattern, k.Type) })
}

// Matches says whether a type is meant by pattern.
func Matches(pattern, kind string) bool {
	if pattern == "*" || pattern == kind {
		return true
	}
	family, ok := strings.CutSuffix(pattern, "*")
	return ok && strings.HasSuffix(family, ".") && strings.HasPrefix(kind, family)
}
