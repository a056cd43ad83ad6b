// Package deploy holds what starts Muster on other machines: a container image,
// a Compose file, a systemd unit, and what Prometheus and Grafana need. It has no code
// but its tests, which check those files and build the image's binary; nothing
// imports it.
package deploy
