#!/bin/sh
# setup-test.sh - gets this machine ready for the tests: packages by apt, one
# TimescaleDB and one plain PostgreSQL. Prints lines of shell to evaluate on
# stdout (export MUSTER_TEST_TIMESCALE=...), all else on stderr.
#
# As root on Debian it installs what is missing. Elsewhere it uses what is there
# and says what will be skipped; under CI=true that is a failure.
set -eu
cd "$(dirname "$0")/.."
ci=${CI:-false}
missing=""
say() { echo "setup: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
lacks() { # lacks WHAT SKIPPED
	say "$1 is missing: $2 skipped"
	missing="$missing $1"
}
may_install=false
if [ "$(id -u)" = 0 ] && have apt-get && [ -e /etc/debian_version ]; then may_install=true; fi

# Packages. Those that start a server on installation are kept from it: the tests
# start their own on free ports.
want=""
need() { have "$1" || [ -x "/usr/sbin/$1" ] || want="$want $2"; }
need gcc "gcc libc6-dev" # the race detector links with it
need chromium chromium
need mosquitto mosquitto
need mosquitto_pub mosquitto-clients
need node nodejs
need npm npm
need sqlite3 sqlite3
need zstd zstd
need swupdate swupdate
need openssl openssl
need ip iproute2
need git git
have initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || want="$want postgresql"
if [ -n "$want" ] && $may_install; then
	say "installing$want"
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod +x $policy
		trap 'rm -f $policy' EXIT INT TERM
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq -o Acquire::Retries=3 update >&2 || say "apt-get update failed"
	# shellcheck disable=SC2086 # a list of names
	apt-get -qq -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 install --no-install-recommends $want >&2 ||
		say "apt-get install failed"
fi
have gcc || have cc || lacks "a C compiler" "the race detector is"
have chromium || lacks chromium "the tests in a browser are"
have mosquitto || [ -x /usr/sbin/mosquitto ] || lacks mosquitto "the comparisons with another broker are"
have sqlite3 || lacks sqlite3 "the view read by its shell is"
have zstd || lacks zstd "the patch that zstd itself applies is"
have swupdate || lacks swupdate "the tests with a client of hawkBit are"
have openssl || lacks openssl "the tests with a client of hawkBit are"
{ have node && have npm; } || lacks "node or npm" "the tests with MQTT.js are"
have mosquitto_pub || lacks mosquitto-clients "the tests with other clients are"

# Databases. A DSN that is set already is used as it is.
database() { # database VARIABLE SCRIPT NAME
	eval "dsn=\${$1:-}"
	# Plain PostgreSQL needs no root where its programs are installed.
	if [ -z "$dsn" ] && { $may_install || [ "$3" = PostgreSQL ]; }; then
		say "starting $3"
		dsn=$(TS_FAST=1 PG_FAST=1 "$2") || dsn=""
	fi
	if [ -z "$dsn" ]; then
		lacks "$3" "its store's tests (set $1 to a DSN to run them) are"
		return
	fi
	printf "export %s='%s'\n" "$1" "$dsn"
}
database MUSTER_TEST_TIMESCALE scripts/timescale-up.sh TimescaleDB
database MUSTER_TEST_POSTGRES scripts/postgres-up.sh PostgreSQL

if [ -n "$missing" ] && [ "$ci" = true ]; then
	say "CI skips nothing; missing:$missing"
	exit 1
fi
if [ -z "$missing" ]; then say "nothing will be skipped"; fi
