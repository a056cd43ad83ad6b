# Muster's commands. Nothing but Go is needed for run, build and lint; test
# installs what its collaborators need on Debian (see scripts/setup-test.sh).
SHELL := /bin/sh
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
RUN_FLAGS ?= --demo
SOAK ?= 10m

.DEFAULT_GOAL := help
.PHONY: help run build test lint deps bench screenshots soak conformance fuzz clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

run: build ## build and start a server with a simulated fleet: dashboard on http://localhost:8080
	./bin/muster serve $(RUN_FLAGS)

build: ## build bin/muster
	@scripts/build.sh "$(VERSION)"

test: ## run every test with the race detector, on every store this machine can have
	@scripts/test.sh

lint: ## formatting, vet, golangci-lint, tidy modules, fresh page, dependency list, shell syntax
	@scripts/lint.sh

deps: ## write deps.txt: the modules that are linked into the binary
	@scripts/deps.sh write

bench: ## print the figures that matter, as ratios against peers in the same run
	@env=$$(scripts/setup-test.sh) && eval "$$env" && go test ./bench -run '^$$' -bench . -benchtime 1x -timeout 60m -v
	@go test ./dashboard/live -run '^$$' -bench 'Conflation|SocketMemory' -benchtime 1x -v

screenshots: ## write docs/screenshots anew, of a server with 10,000 devices behind gateways; takes some ten minutes
	@mkdir -p docs/screenshots && env=$$(scripts/setup-test.sh) && eval "$$env" && MUSTER_PICTURES=$(CURDIR)/docs/screenshots go test -tags pictures ./e2e -run TestPicturesOfEveryPage -count 1 -timeout 30m -v

soak: build ## run a simulated fleet for SOAK (10m) and balance its ledger, churn for as long, then kill the server 100 times a test
	@scripts/soak.sh $(SOAK)
	@MUSTER_CONFORMANCE=$(SOAK) go test ./e2e/conformance -run TestEveryAnswer -count 1 -timeout 3h -v
	@MUSTER_CHURN=$(SOAK) go test ./e2e -run Churn -count 1 -timeout 3h -v
	@env=$$(scripts/setup-test.sh) && eval "$$env" && MUSTER_SOAK=1 go test ./e2e -run 'AHiddenTab|Acked|Database|SurviveKills|Erased|AfterTheRestart|NoAcceptedNotification|TwoServers' -count 1 -timeout 3h -v

conformance: ## run Eclipse Paho's suites against the binary; PAHO is a clone of github.com/eclipse/paho.mqtt.testing
	@scripts/conformance.sh "$(PAHO)"

fuzz: ## run every fuzz target for 20 seconds
	@scripts/fuzz.sh

clean: ## remove what build made
	rm -rf bin
