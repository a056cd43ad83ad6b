// Package storetest is the one conformance kit for what keeps telemetry: each
// engine's tests call Run, and what Run asserts is the contract of
// ingest.Store, ingest.LatestStore and ingest.RangeStore in words a store can
// be held to. It reads results back through Range and by SQL from the view
// telemetry_points, never from a store's own counters. It knows no engine and
// is imported by tests only.
//
// What every engine's telemetry_points(time, device, key, value, text) shows:
// one row per value, holes left out. value is a number for Number and Bool keys
// (0 or 1) and null for JSON keys; text is, for a JSON string, the string
// itself, for any other JSON value its JSON text, and null for Number and Bool
// keys. time is a time stamp or an RFC 3339 text.
package storetest
