// Package hazard is tests only: hostile, broken and unlucky MQTT clients against
// the broker as a process of its own, each known hazard also against the stock
// MQTT server that the broker's codec comes from, where it must do its known harm;
// and a model-based test of what MQTT promises. It talks raw sockets with its own
// few lines of MQTT, so that no fault of the broker's codec can hide itself.
//
// It owns no product code, nobody calls it, and it never reaches into the broker:
// target_test.go is the only place that knows how one is made.
package hazard
