// Package cache keeps what is dear to find out and asked for again and again, in memory
// and within bounds.
//
// It owns typed caches with a bound in entries or weight, a time to live, one load for all
// who ask for the same at once, invalidation that also reaches loads under way, and their
// figures for /metrics and the System page. Rooms make one where a measurement says that
// it pays (docs/adr/0007) and tell it of every change: the time to live is a net below
// that, never the rule. It is the only importer of otter, which decides what is thrown out.
//
// It never starts a goroutine, never loads anything by itself and never answers with what
// was invalidated before the question was asked.
package cache
