#!/bin/sh
# soak.sh DURATION (90s, 10m, 2h) - runs bin/muster with its simulated fleet in an
# empty data directory, watches memory and goroutines, and at the end checks that
# the ledger balances: received + recovered = stored + duplicate + replaced +
# rejected + dropped + queued. Needs curl.
set -eu
cd "$(dirname "$0")/.."
case "${1:-10m}" in
*h) seconds=$((${1%h} * 3600)) ;;
*m) d=${1:-10m}; seconds=$((${d%m} * 60)) ;;
*s) seconds=${1%s} ;;
*)
	echo "usage: $0 DURATION, as 90s, 10m or 2h" >&2
	exit 2
	;;
esac
http=127.0.0.1:${SOAK_HTTP_PORT:-18080}
data=$(mktemp -d)
./bin/muster serve --demo --data "$data" --http "$http" --mqtt "127.0.0.1:${SOAK_MQTT_PORT:-11883}" >"$data/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$data"' EXIT INT TERM

metrics() { curl -fsS --max-time 5 "http://$http/metrics"; }
tries=0
until curl -fsS --max-time 2 "http://$http/readyz" >/dev/null 2>&1; do
	tries=$((tries + 1))
	if [ "$tries" -gt 60 ] || ! kill -0 "$server" 2>/dev/null; then
		echo "soak: the server did not become ready" >&2
		tail -n 20 "$data/log" >&2
		exit 1
	fi
	sleep 1
done

show='
	$1 == "process_resident_memory_bytes" { mb = $2 / 1048576 }
	$1 == "go_goroutines" { g = $2 }
	/^muster_ingest_stored_total[ {]/ { s += $NF }
	END { printf "soak: %5d s  %7.1f MB  %5d goroutines  %10d stored\n", t, mb, g, s }'
every=$((seconds / 20 > 5 ? seconds / 20 : 5))
start=$(date +%s)
base=""
while now=$(($(date +%s) - start)) && [ "$now" -lt "$seconds" ]; do
	metrics | awk -v t="$now" "$show"
	# A tenth of the way in, everything has started.
	if [ -z "$base" ] && [ "$now" -ge $((seconds / 10)) ]; then
		base=$(metrics | awk '$1 == "go_goroutines" { print $2 }')
	fi
	sleep "$every"
done

metrics | awk -v base="${base:-0}" '
	/^muster_ingest_(received|recovered)_total[ {]/ { in_ += $NF }
	/^muster_ingest_(stored|duplicate|replaced|rejected|dropped)_total[ {]/ { out += $NF }
	/^muster_ingest_queued[ {]/ { out += $NF }
	/^muster_ingest_stored_total[ {]/ { stored += $NF }
	$1 == "go_goroutines" { g = $2 }
	END {
		printf "soak: in %d = out and queued %d; goroutines %d, early on %d\n", in_, out, g, base
		if (in_ != out) { print "soak: the ledger does not balance"; exit 1 }
		if (stored == 0) { print "soak: nothing was stored"; exit 1 }
		if (base > 0 && g > base * 1.5 + 20) { print "soak: goroutines grew"; exit 1 }
	}'
echo "soak: passed"
