# The two commands of the README are `make demo` and `make test`; everything here can be run again at any time.

TARGET := $(shell uname -m)-unknown-linux-gnu
# What a node needs, side by side: berthd looks for the shim beside itself.
DIST := target/dist
PREFIX ?= /usr/local
CARGO := PATH="$$PATH:$$HOME/.cargo/bin" cargo

.PHONY: docs demo build install test test-build test-vm fixtures lint bench clean-fixtures

## demo: set everything up, run a first container, say what to type next
demo: build
	scripts/demo $(DIST)

## build: the release binaries, in target/dist
build:
	scripts/setup build
	$(CARGO) build --release --locked -p berthd -p berth-cli
	RUSTFLAGS="-C target-feature=+crt-static" LIBSECCOMP_LINK_TYPE=static \
	    LIBSECCOMP_LIB_PATH=$$(pkg-config --variable=libdir libseccomp) \
	    $(CARGO) build --profile shim --locked -p berth-shim --target $(TARGET)
	mkdir -p $(DIST)
	install target/release/berthd target/release/berth target/$(TARGET)/shim/containerd-shim-berth-v2 $(DIST)

## install: the release binaries, manual pages, completion and the systemd units, below PREFIX (as root)
install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/systemd/system $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	install $(DIST)/* $(DESTDIR)$(PREFIX)/bin
	$(DIST)/berth documentation --man $(DESTDIR)$(PREFIX)/share/man/man1
	$(DIST)/berth completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/berth
	$(DIST)/berth completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_berth
	$(DIST)/berth completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/berth.fish
	sed 's#@PREFIX@#$(PREFIX)#' deploy/systemd/berth.service >$(DESTDIR)/etc/systemd/system/berth.service

## test: every test; installs what the tests work with. What hangs is ended, and the last line names it
test: test-build fixtures
	timeout -k 30 1800 env $(CARGO) test --workspace --locked

test-build:
	scripts/setup test
	$(CARGO) build --workspace --locked
	$(CARGO) test --workspace --locked --no-run

fixtures:
	tests/fixtures/images target/fixtures

## test-vm: the low-level runtime, and limits, on a stock kernel with cgroup v2, in a throw-away machine
test-vm: test-build
	tests/fixtures/images target/fixtures busybox
	tests/vm/run -- env $(CARGO) test --workspace --locked --offline --test oci_runtime
	tests/vm/run -- env TMPDIR=/scratch $(CARGO) test --workspace --locked --offline --test system -- limits

## docs: docs/commands, a page for each command, from the command line itself
docs:
	$(CARGO) build --locked -p berth-cli
	mkdir -p docs/commands && rm -f docs/commands/*.md
	$${CARGO_TARGET_DIR:-target}/debug/berth documentation --markdown docs/commands

## lint: formatting, lints, licences
lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) deny --log-level error check bans licenses sources

## bench: compare with the engines that are installed here
bench: build
	scripts/setup test
	tests/fixtures/images target/fixtures busybox big
	$(CARGO) run --release --locked -p berth-tests --bin bench -- $(DIST) target/fixtures
