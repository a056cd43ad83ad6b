// Package talk is what devices and the server say to each other about firmware, as messages
// (docs/firmware-mqtt.md): the signed offer, reports, requests for pieces of an image, and an
// offer that is taken back; and the same in ThingsBoard's words.
//
// It owns the messages' form, the server's signature under an offer, and which devices are
// still to be told. The server hands it what devices say and carries what it says to them;
// what is true of a device it asks firmware/desk, and pieces it leaves to firmware/chunk.
//
// It never decides who gets a release, keeps nothing, and knows no MQTT.
package talk
