// Package join owns the ways by which clients become devices without an operator
// typing in each one: registered certificate authorities, the keys and secrets by which
// a profile's devices register themselves, claim codes, and the adoption inbox. All of it
// is held in memory and written through to its store.
//
// The server's login asks it about clients the registry does not know, the API changes
// it. It never decides what a device may do, and knows no HTTP, SQL or MQTT.
package join
