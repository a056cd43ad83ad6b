// Package ws carries MQTT over WebSocket (MQTT 5, section 6): it upgrades an HTTP
// request and shows the WebSocket as a plain net.Conn. It owns the WebSocket layer's
// limits: no message is ever held whole, and a client that sends frames without
// content is cut off. The broker calls it; it knows nothing of MQTT but the name of
// its subprotocol, and it checks neither who a client is nor how many there are.
package ws
