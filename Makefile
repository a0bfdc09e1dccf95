# What one does with a checkout. `make` alone lists it. CARGO_TARGET_DIR is respected.

# A shell opened before rustup ran does not have cargo in its PATH yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

LISTEN ?= 127.0.0.1:8080
DATA ?= ./govc-data
SECONDS ?= 60
SUITE ?=

.PHONY: help serve test bench fuzz fmt

help:
	@echo 'make serve                 build the server and start it on $(LISTEN), data in $(DATA)'
	@echo 'make test                  formatting, lints, documentation, all tests, a brief fuzz'
	@echo 'make bench [SUITE=name]    measure beside the peers: all suites, or one'
	@echo 'make fuzz [SECONDS=n]      fuzz each target for n seconds (60)'
	@echo 'make fmt                   format the code'

serve:
	@scripts/prerequisites
	@echo '== building the server (the first time takes several minutes: RocksDB is compiled)'
	cargo build --release --locked -p govc-server
	@echo '== starting it on $(LISTEN), data in $(DATA); Ctrl-C stops it'
	@exec cargo run --release --locked --quiet -p govc-server --bin govc -- serve --listen $(LISTEN) --backend rocksdb --data $(DATA)

test:
	@scripts/prerequisites --tests
	@echo '== formatting'
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	@echo '== lints'
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@echo '== documentation'
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace --locked
	@echo '== tests'
	cargo test --workspace --locked
	@echo '== fuzzing, 10 seconds a target'
	scripts/fuzz 10

bench:
	@scripts/prerequisites --bench
	cargo build --release --locked -p govc-server -p govc-benches
	cargo run --release --locked --quiet -p govc-benches -- $(SUITE)

fuzz:
	@scripts/prerequisites --tests
	scripts/fuzz $(SECONDS)

fmt:
	@scripts/prerequisites
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
