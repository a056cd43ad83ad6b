// Package wire turns bytes into MQTT packets and back, for versions 3.1, 3.1.1
// and 5. The broker's connections call it: Split finds a packet in what was read,
// a Decoder takes its body apart, and a Dialect appends what goes to a client.
//
// Decoding is done by mochi's codec, behind guards: every length, string and
// property of a body is walked first, with the rules of the specification that
// the codec leaves out, and a panic of the codec becomes a malformed packet.
//
// It reads no socket, keeps no session, knows no rights and starts no goroutine.
// Sections named in its comments are those of MQTT 5 where nothing else is said.
package wire
