// Package ddi is hawkBit's Direct Device Integration API, over HTTP: the door of devices that
// run SWUpdate, RAUC's updater, Zephyr's client, or another client of hawkBit.
//
// It owns what those clients read and say: the links of the base resource, the deployment as
// JSON, what a feedback means to a rollout, and how often a device may ask. The server hands
// it the requests under /{tenant}/controller/v1/.
//
// It never decides who gets a release: firmware/desk tells what a device is to do, and takes
// what became of it. Images are sent by whom the server names. JSON only: no client that is
// known asks for hawkBit's CBOR, which is answered with 415.
package ddi
