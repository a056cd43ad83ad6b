#!/bin/sh
# test.sh [PACKAGE...] - every test with the race detector. Under CI=true a skipped
# test is a failure, and only the output of packages that fail is shown.
set -eu
cd "$(dirname "$0")/.."
env=$(scripts/setup-test.sh)
eval "$env"
# Of all packages the longest come first: what starts last decides when all is over.
# Two of them are mostly a client of a server, at which the detector only slows the client:
# every handler that conformance asks runs under it in api, server and e2e, and the pages
# of dashboard/ui run in a browser, before a server that is a list of answers.
longest="./e2e ./server ./api ./store/control ./broker ./bench ./store/... ./api/... ./accounts/... ./firmware/... ./notify/..."
unwatched="./e2e/conformance ./dashboard/ui"
whole=""
if [ $# = 0 ]; then
	whole=1
	# shellcheck disable=SC2086 # two lists
	set -- $longest $(go list ./... | grep -vxE '[^/]+/(e2e/conformance|dashboard/ui)')
fi
race=""
if command -v "$(go env CC)" >/dev/null 2>&1; then
	# SQLite itself is C made Go, and so are the C library and the allocator under it; one
	# goroutine at a time runs a connection. To watch their every load and store takes most
	# of the time of what is tested on SQLite, and finds nothing of ours. Its driver is
	# watched, and all else.
	race="-race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false -gcflags=modernc.org/memory=-race=false"
	export CGO_ENABLED=1
fi

# The tests' own directories lie in memory where there is room: most of them only
# wait for fsync. A process that is killed loses nothing of it there either, and what
# survives a power cut is proved by what is written and synced, not by this disk.
shm=/dev/shm
roomy() { # roomy: 4 GiB are free there and 8 GiB of memory
	[ "$(df -Pk "$shm" 2>/dev/null | awk 'NR == 2 { print $4 }')" -ge 4194304 ] &&
		[ "$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)" -ge 8388608 ]
}
inmemory=""
clean() { if [ -n "$inmemory" ]; then rm -rf "$inmemory"; fi; }
trap clean EXIT INT TERM
if [ -z "${TMPDIR:-}" ] && [ -w "$shm" ] && roomy 2>/dev/null && inmemory=$(mktemp -d "$shm/muster.XXXXXX"); then
	chmod 755 "$inmemory" # some tests run a program as another user
	printf '#!/bin/sh\n' >"$inmemory/may-run"
	chmod +x "$inmemory/may-run"
	if "$inmemory/may-run" 2>/dev/null; then
		export GOTMPDIR="${GOTMPDIR:-/tmp}" TMPDIR="$inmemory" # what go builds needs no memory
	fi
fi

# Three packages at a time: several start servers of their own, and more of them
# only wait for each other on a small machine. Of one package, though, four parallel
# tests: most of what tests say t.Parallel for is waiting.
# Nobody debugs these binaries, and make lint runs go vet: neither symbols nor vet are
# made once more here, for each package.
run() { go test -vet=off "-ldflags=-s -w" -parallel 4 -timeout 25m "$@"; }
# shellcheck disable=SC2086 # an empty $race is no argument
watched() { run $race -p "${TEST_PARALLEL:-3}" "$@"; }
# shellcheck disable=SC2086 # a list
beside() { run -p 1 "$@" $unwatched; }

if [ "${CI:-false}" != true ]; then
	watched "$@"
	if [ -n "$whole" ]; then
		beside
		watched -tags shoutrrr ./notify/chat
	fi
	exit
fi
log=$(mktemp)
other=$(mktemp)
trap 'rm -f "$log" "$other"; clean' EXIT INT TERM
code=0
if [ -n "$whole" ]; then beside -count=1 -v >"$other" 2>&1 & fi
watched -count=1 -v "$@" >"$log" 2>&1 || code=$?
if [ -n "$whole" ]; then
	watched -count=1 -v -tags shoutrrr ./notify/chat >>"$log" 2>&1 || code=$?
	wait $! || code=$?
	cat "$other" >>"$log"
fi
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
