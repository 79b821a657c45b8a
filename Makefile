# Builds, tries, installs and tests; everything it does can be done by the commands below.

CARGO ?= cargo
PREFIX ?= /usr/local
BIN = $(DESTDIR)$(PREFIX)/bin
SHARE = $(DESTDIR)$(PREFIX)/share
PROGRAMS = target/release/rootfs-compile target/release/rootfs-boot

# Programs that `make hello` fetched; and cargo, which a shell that was there before rustup does not know.
export PATH := $(CURDIR)/.tools/bin:$(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.PHONY: all hello test long install uninstall
all:
	@CARGO="$(CARGO)" ci/tools --compile
	$(CARGO) build --release --locked --target-dir target
	@touch $(PROGRAMS)

# Compiles the image that comes with the project and boots it. What that needs and is not here is fetched first, and lies beside
# rootfs-boot, which looks there, so that nothing need be exported to start it by hand.
hello:
	@CARGO="$(CARGO)" ci/tools --boot
	@$(MAKE) --no-print-directory all
	@for f in guest/libkrunfw.so.5 bin/qemu-system-x86_64; do [ ! -e .tools/$$f ] || ln -sf ../../.tools/$$f target/release/; done
	@rm -rf target/hello
	target/release/rootfs-compile build manifests/hello.yaml -o target/hello
	target/release/rootfs-boot target/hello/bundle.vmdk

# By the times of the files and not by cargo, which root need not have (sudo make install). `all` sets them.
$(PROGRAMS): Cargo.toml Cargo.lock $(shell find src -type f)
	@$(MAKE) --no-print-directory all

# Whether it can be written there is asked before it compiles.
install:
	@install -d "$(BIN)" 2>/dev/null && test -w "$(BIN)" || \
	    { echo "make install: $(BIN) cannot be written: sudo make install, or make install PREFIX=\$$HOME/.local" >&2; exit 1; }
	@$(MAKE) --no-print-directory $(PROGRAMS)
	install -m 755 $(PROGRAMS) "$(BIN)"
	umask 022 && target/release/rootfs-compile generate "$(DESTDIR)$(PREFIX)"

uninstall:
	rm -f "$(BIN)/rootfs-compile" "$(BIN)/rootfs-boot"
	rm -f "$(SHARE)"/man/man1/rootfs-compile.1 "$(SHARE)"/man/man1/rootfs-compile-*.1 "$(SHARE)"/man/man1/rootfs-boot.1
	for name in rootfs-compile rootfs-boot; do rm -f "$(SHARE)/bash-completion/completions/$$name" \
	    "$(SHARE)/zsh/site-functions/_$$name" "$(SHARE)/fish/vendor_completions.d/$$name.fish"; done

test:
	ci/test

long:
	ci/test --long
