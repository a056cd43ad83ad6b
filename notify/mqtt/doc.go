// Package mqtt brings notifications to devices over MQTT.
//
// The dispatcher calls its Channel; the server gives it the broker as a Publisher. It
// knows no broker and no topic, keeps no connection, and never waits for a device's ack,
// which comes in as any message of the device does.
package mqtt
