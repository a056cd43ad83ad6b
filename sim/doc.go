// Package sim is a virtual fleet: devices that connect over real MQTT 3.1.1 and
// publish plausible telemetry. It is the demo, the load generator and the
// fixture of end-to-end tests in one.
//
// With Config.Firmware they install firmware too, and apply patches as devices do.
//
// With Config.Gateways they share few connections: each gateway is at one site and speaks for
// the devices there (Config.Place says what and where they are).
//
// Each device, or gateway, is one goroutine and one socket: it waits for answers until its
// next message is due, so the runtime's network poller is the one shared timer
// and no state is locked. cmd/muster and tests call it; it knows the server only
// by its address, and imports of other rooms what applies a patch alone.
package sim
