// Package bulk reads and writes many devices at once, as CSV and as NDJSON, and makes
// or changes them in the registry with a report of what was refused and why.
//
// The API calls it. It knows no HTTP and no store, and never holds a credential
// longer than it takes to hand it out.
package bulk
