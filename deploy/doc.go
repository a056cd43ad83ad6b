// Package deploy holds what starts Muster on other machines: a container image,
// a Compose file, a systemd unit and a Prometheus configuration. It has no code
// but its tests, which check those files and build the image's binary; nothing
// imports it.
package deploy
