// Package query is the one language in which devices are chosen: lists, saved groups,
// bulk actions, live views, and later rules and rollouts.
//
// It owns the text's grammar and meaning: Parse makes a tree of it once, String writes
// the tree in its canonical form, Eval asks one device, and Groups, UsesOf, Necessary and
// Expand say what a planner must know. Package devices gives it its devices, store/control
// makes SQL of the same tree; docs/query.md tells people.
//
// It is pure: it holds no state, reads no clock, knows no registry and no database, and
// never logs. A part of a text that is not understood is an error with its place, never
// left out.
package query
