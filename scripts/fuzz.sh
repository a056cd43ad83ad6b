#!/bin/sh
# fuzz.sh [DURATION] - every fuzz target for DURATION (20s), one after another.
set -eu
cd "$(dirname "$0")/.."
for_each=${1:-20s}
list=$(grep -rE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*\(' --exclude-dir=tools --exclude-dir=.git . |
	sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(.*|\1 \2|' | sort)
[ -n "$list" ] || {
	echo "fuzz: no target was found" >&2
	exit 1
}
echo "$list" | while read -r pkg target; do
	echo "fuzz: $pkg $target"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$for_each" "$pkg"
done
