#!/bin/sh
# conformance.sh CHECKOUT [ARGUMENT...] - runs Eclipse Paho's interoperability suites
# for MQTT 3.1.1 and 5 against muster, test by test, and prints which are green.
#
# CHECKOUT is a clone of github.com/eclipse/paho.mqtt.testing, of which nothing is
# kept here. Each ARGUMENT goes to muster serve. MUSTER_PROGRAM names a binary that
# was built already; CONFORMANCE_ONLY a pattern of tests (5:test_will.*). A red test
# that scripts/conformance.txt explains by the specification's text is no failure,
# as long as it fails in the way that is explained; one listed there that is green
# is. Needs python3 and curl.
set -eu
case "${1:-}" in
"" | -*)
	echo "usage: $0 CHECKOUT [ARGUMENT...]" >&2
	exit 2
	;;
esac
suites=$(cd "$1/interoperability" && pwd)
shift
cd "$(dirname "$0")/.."
cap=60 # seconds that a test may take
work=$(mktemp -d)
pids=""
trap 'for p in $pids; do kill "$p" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT INT TERM
program=${MUSTER_PROGRAM:-$work/muster}
[ -n "${MUSTER_PROGRAM:-}" ] || go build -o "$program" ./cmd/muster
MUSTER_KEY=mst_$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export MUSTER_KEY

free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# start NAME MQTT ARGUMENT... starts a server of its own for one suite.
start() {
	name=$1 http=127.0.0.1:$(free_port) mqtt=127.0.0.1:$2
	shift 2
	MUSTER_ADMIN_KEY=$MUSTER_KEY "$program" serve --data "$work/data-$name" --http "$http" --mqtt "$mqtt" "$@" >"$work/$name.log" 2>&1 &
	server=$!
	pids="$pids $server"
	tries=0
	until curl -fsS --max-time 2 "http://$http/readyz" >/dev/null 2>&1; do
		tries=$((tries + 1))
		if [ "$tries" -gt 60 ] || ! kill -0 "$server" 2>/dev/null; then
			echo "conformance: the server did not become ready" >&2
			tail -n 20 "$work/$name.log" >&2
			exit 1
		fi
		sleep 1
	done
}

# once VERSION FILE TEST PORT runs a test and sets result and why.
once() {
	log=$work/$1-$3.log code=0
	timeout -k 5 "$cap" python3 scripts/conformance.py "$suites/$2" "$3" 127.0.0.1 "$4" >"$log" 2>&1 </dev/null || code=$?
	case $code in
	0) result=green why="" ;;
	124 | 137) result=red why="no end within $cap s" ;;
	*) result=red why=$(grep -E '^[A-Za-z_.]*(Error|Exception)' "$log" | head -n 1 | cut -c 1-160) ;;
	esac
}

# suite VERSION FILE PORT runs every test of a file and notes how each ended. The
# 3.1.1 suite has one test whose name keeps unittest from finding it. A red test is
# tried up to three times, which the table says: some publish on one connection
# before they know that another one's subscription stands.
suite() {
	sed -nE 's/^    def (test\w*|will_message_test)\(self.*/\1/p' "$suites/$2" | while read -r test; do
		echo "$1:$test" | grep -qE "^(${CONFORMANCE_ONLY:-.*})$" || continue
		began=$(date +%s)
		once "$1" "$2" "$test" "$3"
		first=$why
		for try in 2 3; do
			[ "$result" = red ] && [ "$code" != 124 ] && [ "$code" != 137 ] || break
			once "$1" "$2" "$test" "$3"
			if [ "$result" = green ]; then why="at try $try; first: $first"; fi
		done
		printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$test" "$result" "$(($(date +%s) - began))" "$why" >>"$work/results-$1"
	done
}

port3=$(free_port) port5=$(free_port)
start 3 "$port3" "$@"
start 5 "$port5" "$@"
suite 3 client_test.py "$port3" &
three=$!
suite 5 client_test5.py "$port5" &
five=$!
wait "$three"
wait "$five"

cat "$work"/results-* | awk -F '\t' '
	FILENAME != "-" { if ($0 !~ /^(#|$)/) { known[$1 FS $2] = $4; how[$1 FS $2] = $3 } next }
	{
		note = $5
		if ($3 == "green") { green++; if (($1 FS $2) in known) { note = "is listed as red in scripts/conformance.txt"; bad++ } }
		else if (($1 FS $2) in known && index($5, how[$1 FS $2])) { explained++; $3 = "red, explained"; note = known[$1 FS $2] }
		else { bad++ }
		printf "MQTT %-5s %-32s %-14s %3d s  %s\n", ($1 == 3 ? "3.1.1" : $1), $2, $3, $4, note
	}
	END {
		printf "conformance: %d green, %d red with an explanation, %d to be looked at\n", green, explained, bad
		exit bad > 0 || green == 0
	}' scripts/conformance.txt - || {
	if [ -n "${CONFORMANCE_LOGS:-}" ]; then cp "$work"/*.log "$CONFORMANCE_LOGS"; fi
	exit 1
}
