// Package listen owns the broker's sockets until a connection is ready to speak
// MQTT: it accepts on TCP, TLS and unix sockets, reads the PROXY protocol from
// listed peers, makes TLS handshakes, keeps the certificates, and limits new
// connections in all and by address. The broker calls it and owns every connection
// it is given. This package never reads a byte of MQTT and never waits for a
// connection that it has handed over.
package listen
