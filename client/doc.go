// Package client speaks to a Muster server over its HTTP API. The types and one method
// for each operation are generated from the OpenAPI document (client.gen.go); what is
// here by hand is how requests are sent: the key, retries, errors, streams.
//
// It is for other programs and for Muster's own command line and tests. It imports
// nothing of Muster and keeps no state but its connections.
package client
