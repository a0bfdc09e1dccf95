# What one does with a checkout. `make` alone lists it. CARGO_TARGET_DIR is respected.

# A shell opened before rustup ran does not have cargo in its PATH yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

# What `make serve` passes on; without them the environment (GOVC_LISTEN, ...), GOVC_CONFIG's file and the program's
# own defaults decide.
LISTEN :=
DATA :=
BACKEND :=
SECONDS ?= 60
SUITE ?=

SERVE_FLAGS = $(if $(LISTEN),--listen '$(LISTEN)') $(if $(DATA),--data '$(DATA)') $(if $(BACKEND),--backend '$(BACKEND)')

.PHONY: help serve test bench fuzz fmt

help:
	@echo 'make serve                 build the server and start it, on 127.0.0.1:8080 with data in ./govc-data'
	@echo '                           unless LISTEN=, DATA=, BACKEND= or the environment (GOVC_...) say otherwise'
	@echo 'make test                  formatting, lints, documentation, all tests, a brief fuzz'
	@echo 'make bench [SUITE=name]    measure beside the peers: all suites, or one'
	@echo 'make fuzz [SECONDS=n]      fuzz each target for n seconds (60)'
	@echo 'make fmt                   format the code'

serve:
	@scripts/prerequisites
	@echo '== building the server (the first time takes several minutes: RocksDB is compiled)'
	cargo build --release --locked -p govc-server
	@echo '== starting it; it says where it listens and keeps its data; Ctrl-C stops it'
	@exec cargo run --release --locked --quiet -p govc-server --bin govc -- serve $(SERVE_FLAGS)

test:
	@scripts/prerequisites --tests
	@echo '== formatting'
	cargo fmt --all --check
	@echo '== lints'
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@echo '== documentation'
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace --locked
	@echo '== the Git clients that the tests drive'
	@scripts/clients
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
