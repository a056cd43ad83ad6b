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

// Reserved returns the families of types that are not sent yet, but may be asked for.
func Reserved() []string { return []string{"rollout.*", "notification.*"} }

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
