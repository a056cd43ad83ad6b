// Package ui holds the dashboard's page and serves it: the source in src, the
// packages it is bundled with in vendor, and the built page in dist, which is
// committed and embedded, so that nobody needs Node or a network to run, build or
// change it. tools/uibuild makes dist.
//
// The HTTP server mounts Handler at every path that is not the API's or a
// protocol's. The package serves files only: it knows no session, no store and no
// live data, all of which the page asks the API and the live gateway for.
package ui
