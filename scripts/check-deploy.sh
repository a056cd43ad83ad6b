#!/bin/sh
# check-deploy.sh - checks deploy/ as far as this machine can: the Go tests (files'
# structure, a static build as in the Dockerfile, the unit's hardening), then
# systemd-analyze, docker and promtool where they are there. Says what it leaves out.
set -eu
cd "$(dirname "$0")/.."
left=""
go test -count=1 ./deploy

if command -v systemd-analyze >/dev/null 2>&1; then
	systemd-analyze security --offline=yes deploy/muster.service | tail -n 1
else left="$left systemd-analyze"; fi

if command -v promtool >/dev/null 2>&1; then
	promtool check config deploy/prometheus.yml
else left="$left promtool"; fi

if docker compose version >/dev/null 2>&1; then
	MUSTER_DB_PASSWORD=check MUSTER_GRAFANA_PASSWORD=check docker compose -f deploy/compose.yaml config --quiet
	echo "compose: ok"
else left="$left docker-compose"; fi

if docker info >/dev/null 2>&1; then
	docker build -q -f deploy/Dockerfile -t muster:check .
	docker run --rm muster:check version
else left="$left docker-daemon"; fi

if [ -n "$left" ]; then echo "check-deploy: not here, so not checked with:$left"; fi
