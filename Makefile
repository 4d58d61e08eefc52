# `make help` lists the targets. Everything is built into $(TARGET), which follows CARGO_TARGET_DIR.
.DEFAULT_GOAL := help
.PHONY: help install build up demo demo-install peers-install test versions lint bench simulate fuzz mutants replicated scale clean

TARGET := $(or $(CARGO_TARGET_DIR),target)
BRIDGE := clickhouse-kinesis-bridge

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Install ClickHouse, ZooKeeper, a second Kinesis, an S3 and KPL writers for the tests and the demo; prints what goes where.
	@scripts/install.sh

build: ## Build the bridge and the local stack.
	cargo build --workspace --locked

up: install build ## Run ClickHouse, ZooKeeper, Kinesis and the bridge until Ctrl-C.
	$(TARGET)/debug/stack up --bridge $(TARGET)/debug/$(BRIDGE)

demo-install:
	@scripts/install.sh demo

demo: demo-install build ## Load 100,000 records from a Kinesis stream into a ClickHouse table, and check them.
	$(TARGET)/debug/stack demo --bridge $(TARGET)/debug/$(BRIDGE)

lint: ## Check formatting, clippy, docs, dependencies (licences, sources, advisories) and the Compose file.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace --locked
	@scripts/install.sh lint
	scripts/dependencies.sh
	scripts/check-compose.sh

# Cargo builds the programs of both crates along with the tests that start them. A separate `build`
# would compile half of the dependencies twice, since the tests need more of their features. Most
# tests spend most of their time waiting.
test: install lint ## Run everything that must pass.
	RUST_TEST_THREADS=$(or $(RUST_TEST_THREADS),4) cargo test --workspace --locked

versions: build ## Run the main job, a kill drill, repeated inserts and all types on each ClickHouse, as a table; and the error on one that is too old.
	@scripts/install.sh versions
	cargo test --workspace --locked --test it versions::each_engine -- --nocapture --test-threads=1

simulate: ## Simulate the pull protocol from SEEDS=1000000 seeds; SEED=7 runs one, with its log; with SEEDS=1000, that many from there.
	SEEDS=$(or $(SEEDS),$(if $(SEED),1,1000000)) cargo test --package sim --locked --profile simulate every_record_arrives_exactly_once -- --nocapture

# With checks for overflow, which a release build does not have.
fuzz: ## Feed any bytes to whatever parses bytes from outside, FUZZ=1000000 inputs each; ONLY=request for one target, SEED=7 for the inputs of that seed.
	FUZZ=$(or $(FUZZ),1000000) CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true \
		cargo test --package fuzz --locked --release -- $(ONLY:%=%::)

mutants: ## Plant known bugs, one at a time, and check that the simulation finds each.
	cargo build --workspace --locked
	$(TARGET)/debug/stack mutants $(MUTANTS)

replicated: install build ## Kill servers and bridges of a Replicated table, in four layouts, each from SEEDS=5 seeds; SEED=7 runs one.
	SEEDS=$(or $(SEEDS),5) ROUNDS=$(or $(ROUNDS),3) RUST_TEST_THREADS=1 cargo test --workspace --locked --test it replicated::drill -- --nocapture

scale: ## Simulate 5,000 shards on 50 workers and on one: operations on the state, hand-over, memory per shard, processor time.
	@for size in $(or $(SCALE),5000x50 5000x1); do \
	    SCALE=$$size cargo test --package sim --locked --release many_shards_and_workers -- --nocapture || exit 1; done

peers-install:
	@scripts/install.sh peers

bench: $(if $(findstring peers,$(BENCH)),peers-install,install) ## Measure release builds, each figure beside its ceiling; BENCH='--records 200000' for a quick run, '--only peers' for other movers beside the bridge.
	cargo build --workspace --locked --release
	$(TARGET)/release/stack bench --bridge $(TARGET)/release/$(BRIDGE) $(BENCH)

clean: ## Remove what was built and installed into the checkout.
	cargo clean
	rm -rf .stack
