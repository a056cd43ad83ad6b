// Package muster holds the vocabulary that three rooms or more say: device
// identifiers, readings, events and errors. Every room imports it; it imports
// only the standard library and does nothing by itself.
package muster
