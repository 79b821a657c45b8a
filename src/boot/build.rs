//! Builds the guest's init and hands its path to the crate as `GUEST_INIT`.
//!
//! The init is a program of its own for the same architecture: static, without
//! a standard library, and so not a target of this package. A guest runs Linux, whatever
//! its host runs.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../guest");
    println!("cargo::rerun-if-changed=src/wire.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("init");
    println!("cargo::rustc-env=GUEST_INIT={}", out.display());
    let (target, linker) = target_and_linker();
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
    if let Some(linker) = linker {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.status().expect("rustc starts: cargo ran it too");
    assert!(status.success(), "the guest's init does not compile: {rustc:?}");
}

/// What the init is compiled for, and the linker that the user has for it, if any.
fn target_and_linker() -> (String, Option<String>) {
    let of_cargo = |name: &str| env::var(name).expect("cargo sets it");
    if of_cargo("CARGO_CFG_TARGET_OS") == "linux" {
        return (of_cargo("TARGET"), env::var("RUSTC_LINKER").ok());
    }
    let target = format!("{}-unknown-linux-gnu", of_cargo("CARGO_CFG_TARGET_ARCH"));
    // Cargo tells a build script of no linker but its own target's.
    let name = format!("CARGO_TARGET_{}_LINKER", target.replace('-', "_").to_uppercase());
    println!("cargo::rerun-if-env-changed={name}");
    (target, env::var(name).ok())
}
