# `make help` lists the targets. Everything is built into $(TARGET), which follows CARGO_TARGET_DIR.
.DEFAULT_GOAL := help
.PHONY: help install build up demo test versions lint bench simulate mutants replicated scale clean

TARGET := $(or $(CARGO_TARGET_DIR),target)
BRIDGE := clickhouse-kinesis-bridge

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Install ClickHouse, ZooKeeper, a second Kinesis, an S3 and writers of KPL aggregates for the tests and the demo (says what and where).
	@scripts/install.sh

build: ## Build the bridge and the local stack.
	cargo build --workspace --locked

up: install build ## Bring up ClickHouse, ZooKeeper, Kinesis and the bridge, until Ctrl-C.
	$(TARGET)/debug/stack up --bridge $(TARGET)/debug/$(BRIDGE)

demo: install build ## Bring 100,000 records from a Kinesis stream into a ClickHouse table, and check them.
	$(TARGET)/debug/stack demo --bridge $(TARGET)/debug/$(BRIDGE)

lint: ## Formatting, clippy, docs, dependencies (licences, sources, advisories), the Compose file.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace --locked
	@scripts/install.sh lint
	scripts/dependencies.sh
	scripts/check-compose.sh

# The tests start the programs of both crates, which Cargo builds with them. `build` would build half of the dependencies twice, since those of the
# tests have more features. Most tests wait for something most of the time.
test: install lint ## Everything that must pass.
	RUST_TEST_THREADS=$(or $(RUST_TEST_THREADS),4) cargo test --workspace --locked

versions: build ## The main job, a kill drill, repeated inserts and all types on each ClickHouse that can be had, as a table; what is said on one that is too old.
	@scripts/install.sh versions
	cargo test --workspace --locked --test it versions::each_engine -- --nocapture --test-threads=1

simulate: ## The pull protocol in a simulated world, from SEEDS=1000000 seeds; SEED=7 for one, with its log, or with SEEDS=1000 from there on.
	SEEDS=$(or $(SEEDS),$(if $(SEED),1,1000000)) cargo test --package sim --locked --release every_record_arrives_exactly_once -- --nocapture

mutants: ## Plant known bugs, one at a time, and see whether the simulation finds each.
	cargo build --workspace --locked
	$(TARGET)/debug/stack mutants $(MUTANTS)

replicated: install build ## Kill servers and bridges of a Replicated table, in four layouts, each from SEEDS=5 seeds; SEED=7 for one.
	SEEDS=$(or $(SEEDS),5) ROUNDS=$(or $(ROUNDS),3) RUST_TEST_THREADS=1 cargo test --workspace --locked --test it replicated::drill -- --nocapture

scale: ## 5,000 shards and 50 workers in virtual time: operations on the state, hand-over, memory a shard.
	SCALE=$(or $(SCALE),5000x50) cargo test --package sim --locked --release many_shards_and_workers -- --nocapture

bench: install ## The figures, each beside its ceiling, in release builds; BENCH='--records 200000' for a short look.
	cargo build --workspace --locked --release
	$(TARGET)/release/stack bench --bridge $(TARGET)/release/$(BRIDGE) $(BENCH)

clean: ## Remove what was built and installed into the checkout.
	cargo clean
	rm -rf .stack
