#!/bin/sh
# lint.sh - everything that is checked without running the product. Each step
# runs even when an earlier one failed, so that one run shows all.
set -u
cd "$(dirname "$0")/.." || exit 1
failed=""
step() { # step NAME COMMAND...
	name=$1
	shift
	start=$(date +%s)
	if "$@"; then result=ok; else
		result=FAILED
		failed="$failed $name"
	fi
	printf 'lint: %-14s %-6s %ss\n' "$name" "$result" "$(($(date +%s) - start))"
}

unformatted() {
	found=$(git ls-files -co --exclude-standard '*.go' | while read -r f; do [ -e "$f" ] && echo "$f"; done | xargs gofmt -l)
	[ -z "$found" ] || {
		echo "not formatted: $found"
		return 1
	}
}

# golangci-lint is built once for each tools/go.sum and Go version; that takes
# minutes the first time.
golangci() {
	key=$(cat tools/go.sum tools/go.mod | cksum | tr -d ' ')-$(go env GOVERSION)
	dir=${XDG_CACHE_HOME:-$HOME/.cache}/muster/tools/$key
	if [ ! -x "$dir/golangci-lint" ]; then
		echo "lint: building golangci-lint (some minutes, once)"
		mkdir -p "$dir"
		(cd tools && go build -o "$dir/golangci-lint.new" github.com/golangci/golangci-lint/v2/cmd/golangci-lint) || return 1
		mv "$dir/golangci-lint.new" "$dir/golangci-lint"
	fi
	"$dir/golangci-lint" config verify && "$dir/golangci-lint" run ./... &&
		"$dir/golangci-lint" run --build-tags shoutrrr ./notify/chat/...
}

# What is built with a tag only.
tagged() { go vet -tags shoutrrr ./notify/chat && go vet -tags pictures ./e2e && go build -tags shoutrrr -o /dev/null ./cmd/muster; }

page() { (cd tools && go run ./uibuild -check); }

# The document itself is held to the routes by a test of package api.
clients() { (cd tools && go run ./apigen -check); }

promql() { (cd tools/promcheck && go test ./... && go run . -root ../..); }

shell() {
	bad=0
	for f in scripts/*.sh; do sh -n "$f" || bad=1; done
	if command -v bash >/dev/null 2>&1; then bash -n .ci/run || bad=1; fi
	if command -v shellcheck >/dev/null 2>&1; then shellcheck -S warning scripts/*.sh .ci/run || bad=1; fi
	return $bad
}

step gofmt unformatted
step vet go vet ./...
step tagged tagged
step tidy go mod tidy -diff
step dependencies scripts/deps.sh check
step page page
step clients clients
step promql promql
step shell shell
step golangci-lint golangci
if [ -n "$failed" ]; then
	echo "lint: failed:$failed" >&2
	exit 1
fi
