#!/bin/sh
# test.sh [PACKAGE...] - every test with the race detector. Under CI=true a skipped
# test is a failure, and only the output of packages that fail is shown.
set -eu
cd "$(dirname "$0")/.."
env=$(scripts/setup-test.sh)
eval "$env"
if [ $# = 0 ]; then set -- ./...; fi
race=""
if command -v "$(go env CC)" >/dev/null 2>&1; then
	race=-race
	export CGO_ENABLED=1
fi

# Two packages at a time: several start servers of their own, and more of them
# only wait for each other on a small machine.
# shellcheck disable=SC2086 # an empty $race is no argument
run() { go test $race -p "${TEST_PARALLEL:-2}" -timeout 25m "$@"; }

if [ "${CI:-false}" != true ]; then
	run "$@"
	exit
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM
code=0
run -count=1 -v "$@" >"$log" 2>&1 || code=$?
awk '
	{ chunk[n++ % 2000] = $0 }
	/^(ok|FAIL|\?)[ ]*\t/ {
		if ($1 == "FAIL") for (i = (n > 2000 ? n - 2000 : 0); i < n - 1; i++) print chunk[i % 2000]
		print; n = 0
	}
	END { for (i = 0; i < n && i < 2000; i++) print chunk[i] }' "$log"
# What failed comes once more at the end, without what passed beside it.
awk '
	/^=== RUN/ { n = 0; next }
	/^ *--- FAIL|^panic:|^WARNING: DATA RACE/ { for (i = 0; i < n; i++) print kept[i]; n = 0; print; tail = 30; next }
	/^ *--- |^=== / { n = 0; tail = 0; next }
	tail > 0 { print; tail--; next }
	n < 40 { kept[n++] = $0 }' "$log" | tail -n 120
if grep -E '^ *--- SKIP' "$log"; then
	echo "test: the tests above were skipped; CI skips nothing" >&2
	code=1
fi
exit "$code"
