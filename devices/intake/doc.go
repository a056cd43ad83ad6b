// Package intake takes what devices send beside telemetry (reported documents,
// events, log lines, command results) from the broker to the packages that own it.
// Each kind has one bounded queue and one worker, which gives its owner many
// messages at once, to be committed in one transaction, and acknowledges them in
// the order they came once that is done. Nothing that was acknowledged is lost, and
// nothing is lost silently: received = stored + rejected + dropped + queued.
//
// The server's sink calls Accept; the owners are devices/twin, devices/command and
// devices/trail. It reads no payload, stores nothing itself, and knows no MQTT.
package intake
