// Package webhook sends one event to one address as Standard Webhooks has it
// (https://www.standardwebhooks.com, specification 1.0.0): signature and headers, one
// attempt, and a guard that keeps it from reaching inner networks.
//
// Package notify's test button and the delivery of events call Deliver; receivers and
// tests call Verify. It knows no registration, queues nothing, never tries again, and
// never logs.
package webhook
