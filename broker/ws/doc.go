// Package ws carries MQTT over WebSocket (MQTT 5, section 6): it upgrades an HTTP
// request and shows the WebSocket as a plain net.Conn. The broker calls it; it
// knows nothing of MQTT but the name of its subprotocol.
package ws
