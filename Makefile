# What a machine needs: a Rust toolchain, a C compiler, GNU make, python3 with venv. The rest is set up under target/.

.DEFAULT_GOAL := help
.PHONY: help run test bench check deb soak clean

target := $(or $(CARGO_TARGET_DIR),target)

# Trying or testing catchment must not touch the broker or the settings that somebody's shell points at.
foreign  := $(filter-out NATS_SERVER_BIN,$(filter NATS_% CATCHMENT_%,$(.VARIABLES)))
isolated := env $(addprefix -u ,$(foreign))

oldest_rust = $(shell sed -n 's/^rust-version = "\(.*\)"$$/\1/p' Cargo.toml)

# Most tests wait for servers and processes most of the time.
export RUST_TEST_THREADS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

# Starts a recipe that needs a nats-server; stops it with the script's own message if there is none.
with_server = @server=$$(scripts/nats-server) || exit 1; exec $(isolated) NATS_SERVER_BIN="$$server"

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Start a nats-server and a collector that writes catchment.db, until Ctrl-C
	@cargo build --locked --release
	$(with_server) $(target)/release/catchment run --with-server

test: ## Run all tests, also those with a real nats-server and with a client in Python
	$(with_server) PYTHON_WITH_NATS="$$(scripts/nats-py)" cargo test --locked

bench: ## Measure direct recording against NATS, then single parts; reports go to target/bench/
	@cargo build --locked --release --benches --bins
	@mkdir -p $(target)/bench
	$(with_server) sh -ec '\
		$(target)/release/catchment compare --pairs 6 --idle 3s --away 1s --no-axes --report $(target)/bench/report.html \
			--report $(target)/bench/report.md --report $(target)/bench/report.json; \
		echo "Now the benches of single parts: about six minutes."; \
		cargo bench --locked; \
		echo "The report of the comparison: $(target)/bench/report.html"'

soak: ## Run the long tests of kills, outages and memory; about an hour
	$(with_server) \
		cargo test --locked --release --test it -- --ignored --nocapture --test-threads=1 soak

check: ## Check format, lints, docs, imports, features, licenses and the oldest compiler
	cargo fmt --check
	scripts/layers --self-test
	scripts/layers
	cargo clippy --locked --all-targets -- -D warnings
	scripts/features
	RUSTDOCFLAGS="-D warnings" scripts/public-items
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	@if cargo deny --version > /dev/null 2>&1; \
		then echo cargo deny --locked check bans licenses sources; cargo deny --locked check bans licenses sources; \
		else echo "skipped: cargo deny is not installed"; fi
	@toolchain=$$(rustup toolchain list 2> /dev/null | grep -oE '^$(oldest_rust)(\.[0-9]+)?-[^ ]+' | head -n 1); \
	if [ -n "$$toolchain" ]; \
		then echo cargo "+$$toolchain" check --locked; cargo "+$$toolchain" check --locked; \
		else echo "skipped: Rust $(oldest_rust) is not installed"; fi

deb: ## Build a Debian package with the service, manual pages and completions; needs cargo-deb
	@cargo deb --version > /dev/null 2>&1 || { echo "cargo-deb is not installed: cargo install cargo-deb" >&2; exit 1; }
	@cargo build --locked --profile dist
	scripts/package-files $(target)/package $(target)/dist/catchment
	cargo deb --locked --no-build --profile dist

clean: ## Remove everything that was built or installed; databases stay
	cargo clean
	rm -rf target/nats target/nats.* target/nats-py target/nats-py.*
