#!/bin/sh
# fuzz.sh [DURATION [DIRECTORY]] - every fuzz target below DIRECTORY (all) for
# DURATION (20s), two at a time with one worker each. Only what fails is shown in full.
set -eu
cd "$(dirname "$0")/.."
for_each=${1:-20s}
list=$(grep -rE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*\(' --exclude-dir=tools --exclude-dir=.git "./${2:-}" |
	sed -E 's|^\./+|./|; s|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(.*|\1 \2|' | sort)
[ -n "$list" ] || {
	echo "fuzz: no target was found" >&2
	exit 1
}
echo "$list" | xargs -P 2 -L 1 sh -c '
	log=$(mktemp)
	if go test -run "^\$" -fuzz "^$2\$" -fuzztime "$0" -fuzzminimizetime 1x -parallel 1 "$1" >"$log" 2>&1; then
		echo "fuzz: $1 $2: $(grep -E "^fuzz: elapsed" "$log" | tail -n 1 | sed "s/^fuzz: //")"
		rm -f "$log"
	else
		echo "fuzz: $1 $2 FAILED"
		cat "$log"
		rm -f "$log"
		exit 255
	fi' "$for_each"
