// Package strict refuses JSON that programs read differently: two members of one name, text after the value, bytes
// that are not UTF-8, numbers beyond a double, nesting without end (RFC 7493, "I-JSON"). The API asks it about each
// JSON body before anything is decoded. It builds no values and knows no schema: unknown members are found by the API's
// own validation.
package strict
