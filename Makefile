# Builds, tries and tests; everything it does can be done by the commands below.

CARGO ?= cargo
KRUNFW = .tools/guest/libkrunfw.so.5

.PHONY: all hello test long install
all:
	$(CARGO) build --release

# Compiles the image that comes with the project and boots it, with a guest kernel that is fetched if it is not there.
hello: all $(KRUNFW)
	@rm -rf target/hello
	target/release/rootfs-compile build manifests/hello.yaml -o target/hello
	ROOTFS_BOOT_KRUNFW=$${ROOTFS_BOOT_KRUNFW:-$(KRUNFW)} target/release/rootfs-boot target/hello/bundle.vmdk

$(KRUNFW):
	ci/tools --krunfw

test:
	ci/test

long:
	ci/test --long
