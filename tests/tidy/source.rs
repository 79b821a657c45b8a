//! The sources of the crates, parsed, and files of other kinds as text.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates, by the names of their directories.
pub const CRATES: [&str; 5] = ["fsimage", "oci", "bundle", "boot", "compile"];

/// One file of a library.
pub struct Source {
    /// From the top of the project, for messages.
    pub path: String,
    pub text: String,
    pub syntax: syn::File,
    /// Whether the file is `mod.rs` or `lib.rs`, which list the modules of a room.
    pub is_shelf: bool,
}

/// The top of the project.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the project has a top")
}

/// All files below `dir`, a path from the top, whose names end with `ending`; programs and tests included.
pub fn files(dir: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(top().join(&dir)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{dir}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                dirs.push(path);
            } else if path.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What the file at `path` holds.
pub fn text(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap()
}

/// The file at `path`, parsed.
pub fn source(path: &str) -> Source {
    let text = text(path);
    let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    let is_shelf = path.ends_with("/mod.rs") || path.ends_with("/lib.rs");
    Source { path: path.to_owned(), text, syntax, is_shelf }
}

/// The files of the library of `name`, by module path (`tree::merge`); the root is `""`.
pub fn library(name: &str) -> BTreeMap<String, Source> {
    let dir = format!("src/{name}/src");
    let mut modules = BTreeMap::new();
    for path in files(&dir, ".rs") {
        let inside = path.strip_prefix(&format!("{dir}/")).unwrap();
        if inside.starts_with("bin/") || inside == "main.rs" {
            continue;
        }
        let module = inside.strip_suffix(".rs").unwrap().replace('/', "::");
        let module = match module.strip_suffix("::mod") {
            Some(room) => room.to_owned(),
            None if module == "lib" => String::new(),
            None => module,
        };
        modules.insert(module, source(&path));
    }
    assert!(modules.len() > 10, "{name}: only {} files were found", modules.len());
    modules
}
