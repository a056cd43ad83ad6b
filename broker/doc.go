// Package broker is MQTT in and out: it accepts connections, authenticates
// clients, decides what each may publish and subscribe, hands what devices send
// to its Sink and acknowledges it when the Sink says so, and publishes what other
// rooms have for devices. It is the only importer of mochi-mqtt, and its face to
// other rooms is free of mochi's types.
//
// The server starts and stops it. It never stores anything itself.
package broker
