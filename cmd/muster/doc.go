// Command muster is the whole platform in one binary: `muster serve` runs it,
// `muster sim` is a virtual fleet, `muster health` asks a running one how it is.
// Only this package reads flags and the environment, prints, and exits.
package main
