//! Builds the guest's init and hands its path to the crate as `GUEST_INIT`.
//!
//! The init is a program of its own for the same architecture: static, without
//! a standard library, and so not a target of this package.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../guest");
    println!("cargo::rerun-if-changed=src/wire.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("init");
    println!("cargo::rustc-env=GUEST_INIT={}", out.display());
    let target = env::var("TARGET").expect("cargo sets it");
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets it"));
    rustc
        .args(["../guest/main.rs", "--crate-name", "init", "--crate-type", "bin"])
        .args(["--edition", "2024", "--target", &target, "-o"])
        .arg(&out)
        .args(["panic=abort", "opt-level=s", "lto=fat", "strip=symbols"].map(|o| format!("-C{o}")))
        .args(["relocation-model=static", "target-feature=+crt-static"].map(|o| format!("-C{o}")))
        .args(
            ["-nostartfiles", "-nostdlib", "-static", "-Wl,--build-id=none"]
                .map(|o| format!("-Clink-arg={o}")),
        );
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.status().expect("rustc starts: cargo ran it too");
    assert!(status.success(), "the guest's init does not compile: {rustc:?}");
}
