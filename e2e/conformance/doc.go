// Package conformance holds the running server to its own OpenAPI document: it
// makes requests from the document, with values within and outside of the schemas,
// sends them to a whole server, and checks every answer against the document.
//
// It holds tests only, and knows of the API what the document says. MUSTER_CONFORMANCE
// gives a duration to go on for with random seeds; make soak sets it.
package conformance
