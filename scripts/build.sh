#!/bin/sh
# build.sh VERSION - builds bin/muster, static and stamped with VERSION. The first
# build compiles a few hundred packages, so it says how far it is.
set -eu
cd "$(dirname "$0")/.."
version=${1:-dev}
mkdir -p bin
total=$(go list -deps ./cmd/muster | wc -l)
{
	code=0
	CGO_ENABLED=0 go build -v -trimpath -ldflags "-s -w -X main.version=$version" -o bin/muster ./cmd/muster 2>&1 || code=$?
	echo "exit $code"
} | awk -v total="$total" -v version="$version" '
	BEGIN             { code = 1 }
	/^exit [0-9]+$/   { code = $2; next }
	/^[A-Za-z0-9_.\/~-]+$/ { # go build -v names each package it compiles
		if (++n == 1) print "building: up to " total + 0 " packages, some minutes the first time, seconds from then on"
		if (n % 25 == 0) print "  " n " compiled, now " $0
		fflush(); next
	}
	{ print }
	END {
		if (code == 0) print "built bin/muster " version
		exit code
	}'
