// Package api is the HTTP API for third parties and the dashboard, with its
// OpenAPI description, health, readiness and metrics. It turns requests into
// calls on the registry, the accounts and the stores, and their errors into
// problem+json.
//
// The server mounts it at the root of the HTTP port; what is not its own it hands
// to the dashboard. It decides who may do what, keeps no state of its own, and
// never reaches a store but through the interfaces in Deps.
package api
