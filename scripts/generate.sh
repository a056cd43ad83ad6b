#!/bin/sh
# generate.sh - writes what follows from the API's routes: api/openapi.json, the Go
# client and the page's TypeScript types. Run it after a change of a route or a type.
set -eu
cd "$(dirname "$0")/.."
MUSTER_WRITE=1 go test ./api -run TestTheDocumentIsKept -count 1
cd tools && go run ./apigen
