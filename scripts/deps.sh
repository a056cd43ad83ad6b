#!/bin/sh
# deps.sh check|write - deps.txt lists the modules that are linked into the binary,
# so that a new one is a line in the change that brings it in.
set -eu
cd "$(dirname "$0")/.."
list() {
	GOOS=linux GOARCH=amd64 CGO_ENABLED=0 go list -deps \
		-f '{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}' ./cmd/muster | sed '/^$/d' | LC_ALL=C sort -u
}
case "${1:-}" in
write)
	list >deps.txt.new
	mv deps.txt.new deps.txt
	;;
check)
	now=$(list)
	if [ "$now" != "$(cat deps.txt)" ]; then
		echo "deps.txt is not what cmd/muster links; look at the difference and run: make deps" >&2
		echo "$now" | diff deps.txt - >&2 || exit 1
	fi
	;;
*)
	echo "usage: $0 check|write" >&2
	exit 2
	;;
esac
