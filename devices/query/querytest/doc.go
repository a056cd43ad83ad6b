// Package querytest makes random registries and random queries, so that all who answer
// the language can be held to the same answers. A Fleet's devices are query.Subjects
// that look everything up in the plainest way.
//
// The tests of devices/query and of store/control call it; no product code does.
package querytest
