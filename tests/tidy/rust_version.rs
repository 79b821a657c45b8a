//! The oldest Rust that the project says it needs. That the code calls nothing newer is for
//! clippy's lint `incompatible_msrv`, which CI denies.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::source::top;

/// `1.91` or `1.91.0` as numbers.
fn version(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = text.split('.').map(|number| number.parse().unwrap()).collect();
    numbers.resize(3, 0);
    numbers
}

/// Every package that is compiled here, tests included, as cargo tells of it.
fn packages() -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--locked"]).current_dir(top());
    let host = Command::new(env!("CARGO")).arg("-vV").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = cargo.args(["--filter-platform", host]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let Value::Object(mut metadata) = serde_json::from_slice(&output.stdout).unwrap() else {
        panic!("cargo metadata is an object");
    };
    let Some(Value::Array(packages)) = metadata.remove("packages") else {
        panic!("it has packages");
    };
    packages
}

#[test]
fn it_is_that_of_the_dependency_that_needs_the_newest() {
    let (mut own, mut needed) = (String::new(), (version("1.0"), String::new()));
    for package in packages() {
        let Some(rust) = package["rust_version"].as_str() else { continue };
        let name = format!("{} {}", package["name"], package["version"]);
        match package["source"].is_null() {
            true => own = rust.to_owned(),
            false => needed = needed.max((version(rust), name)),
        }
    }
    let (newest, name) = needed;
    assert_eq!(version(&own), newest, "rust-version of Cargo.toml, and what {name} needs");
    let readme = fs::read_to_string(top().join("README.md")).unwrap();
    assert!(readme.contains(&format!("Rust {own} or newer")), "README.md tells another version");
}
