// Package channeltest is what every channel of package notify/outbox must do, as tests:
// each channel runs them against a receiver of its own kind that can be made to refuse,
// stall and hang up. It is never part of the product.
package channeltest
