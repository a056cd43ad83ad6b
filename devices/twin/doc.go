// Package twin keeps what every device should be (desired) and what it says it is
// (reported): two JSON documents with versions, of at most 64 KiB each. Desired is
// written at four levels, fleet, profile, static group and device; the effective
// document is their merge, later levels winning key by key, and converged says whether
// the device reports every leaf of it.
//
// The API changes desired documents, devices/intake hands in what devices report, the
// server shows the effective document at devices/{id}/desired and tells this package
// which devices changed in the registry. All is held in memory and written through to a
// Store; reads never wait for it.
//
// It knows no HTTP, SQL or MQTT, and keeps no history.
package twin
