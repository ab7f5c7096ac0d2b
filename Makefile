# Everything a user or a developer of Delos Deploy does with it. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE := $(CURDIR)/.cache
export PATH := $(CACHE)/bin:$(PATH)
# Debian's Chromium; the browser tests download none.
export CHROMIUM ?= /usr/bin/chromium
COMPOSE := docker compose

.PHONY: help
help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|'

.PHONY: run run-deploy
run: ## Build and start the service on port 9005, with embedded storage
	cargo run --locked
run-deploy: run ## The same as `run`

.PHONY: demo
demo: ## Watch the service decide: four versions of a prompt under simulated traffic, in half a minute
	cargo build --locked -p delos-deploy -p demo
	"$${CARGO_TARGET_DIR:-target}/debug/demo"

.PHONY: test
test: test-dependencies ## Install what the tests need, start it, and run all tests
	cargo build --locked --workspace --all-targets --features delos-deploy/faults
	scripts/with-services scripts/test-rust
	"$${CARGO_TARGET_DIR:-target}/debug/demo"
	"$${CARGO_TARGET_DIR:-target}/debug/chaos"
	cd web-examples && npm ci --no-audit --no-fund && npm run check && npm test
	clients/ofrep/run
	clients/flagd/run
	clients/otel/run
	clients/schemathesis/run
	clients/rust/run
	clients/conformance/run

.PHONY: test-dependencies
test-dependencies:
	scripts/install-test-dependencies

.PHONY: check
check: ## Check format, lints, licences, sources and duplicate code paths of dependencies
	cargo fmt --all --check
	cargo fmt --manifest-path clients/rust/Cargo.toml --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/deny check bans licenses sources

.PHONY: advisories
advisories: ## Check the dependencies against the advisory database (needs GitHub)
	scripts/deny check advisories

.PHONY: bench
bench: ## Measure side by side with bare servers, pgbench and other flag servers, and print the ratios
	scripts/bench

.PHONY: chaos
chaos: test-dependencies ## Kill, pause and cut off replicas, show that bugs are found, upgrade under load
	scripts/chaos
	scripts/chaos bugs
	scripts/upgrade

.PHONY: simulate
simulate: ## Simulate rollouts: how often the analysis is wrong, and how fast it is right
	scripts/simulate --check

.PHONY: dst
dst: ## Play 100,000 seeds of the core, with faults, and every interleaving of a small run
	cargo run --locked --release -p dst -- --exhaustive
	cargo run --locked --release -p dst -- --seeds 100000

.PHONY: fuzz
fuzz: ## Fuzz what callers send and what is decided by, a minute each
	scripts/fuzz

.PHONY: openapi
openapi: ## Generate openapi/openapi.json anew
	cargo run --locked --quiet -- openapi > openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json

.PHONY: web
web: ## Serve the example pages on port 8080
	cd web-examples && npm ci --no-audit --no-fund && npm start

.PHONY: image up down
image: ## Build the container image
	docker build -t delos-deploy .
up: ## Start the service with PostgreSQL and Redis in containers
	$(COMPOSE) up --build --detach --wait
down: ## Stop them
	$(COMPOSE) down
