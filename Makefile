# `make help` lists the targets. Everything is built into $(TARGET), which follows CARGO_TARGET_DIR.
.DEFAULT_GOAL := help
.PHONY: help install build up demo test lint bench clean

TARGET := $(or $(CARGO_TARGET_DIR),target)
BRIDGE := clickhouse-kinesis-bridge

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Install ClickHouse, ZooKeeper and a second Kinesis for the tests and the demo (says what and where).
	@scripts/install.sh

build: ## Build the bridge and the local stack.
	cargo build --workspace --locked

up: install build ## Bring up ClickHouse, ZooKeeper, Kinesis and the bridge, until Ctrl-C.
	$(TARGET)/debug/stack up --bridge $(TARGET)/debug/$(BRIDGE)

demo: install build ## Bring 100,000 records from a Kinesis stream into a ClickHouse table, and check them.
	$(TARGET)/debug/stack demo --bridge $(TARGET)/debug/$(BRIDGE)

lint: ## Formatting, clippy, docs, licences, the Compose file.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace --locked
	scripts/licences.sh
	scripts/check-compose.sh

# The tests start the programs of both crates, so all of them are built first.
test: install lint build ## Everything that must pass.
	cargo test --workspace --locked

bench: install ## The figures, each beside its ceiling, in release builds; BENCH='--records 200000' for a short look.
	cargo build --workspace --locked --release
	$(TARGET)/release/stack bench --bridge $(TARGET)/release/$(BRIDGE) $(BENCH)

clean: ## Remove what was built and installed into the checkout.
	cargo clean
	rm -rf .stack
