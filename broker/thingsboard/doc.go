// Package thingsboard owns the translation between ThingsBoard's MQTT API for
// devices, gateways and self-registration and Muster's own topics: Up for what a
// client publishes, Subscribe for what it asks for, Subscription.Down and the
// methods of Request for what goes back to it. What is translated, how, and what
// differs is in docs/thingsboard.md; testdata/golden.json quotes the documented
// sequences with their sources.
//
// The broker calls it at its edge, for topics that Is says are ThingsBoard's; inside
// there are canonical topics only. It is pure: no I/O, no goroutine, no clock, no
// state, and it decides no right. Payloads that it returns may alias those that it
// was given. Errors are muster.Invalid, or muster.TooLarge, and say what is wrong.
package thingsboard
