//! How files, functions and messages are written.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};
use syn::{ImplItemFn, Item, ItemFn, LitStr, Visibility};

use super::source::{CRATES, Source, files, library, source, text};

/// Lines of a file: one room that a reader can keep in mind.
const MAX_LINES: usize = 500;
/// Parameters of a function, `self` included.
const MAX_PARAMETERS: usize = 6;
/// English that a message must not use, and what to write instead. (That there is no such
/// thing is plain.)
const PHRASES: [(&str, &str); 2] = [(" is no ", " is not a "), (" are no ", " are not ")];

/// The crates in which no two types have one name, be they public or not. In fsimage, EROFS
/// and ext4 each have a `Reader`, a `Superblock` and so on, and their paths tell them apart.
const UNIQUE: [&str; 4] = ["oci", "bundle", "boot", "compile"];

/// Fails with all of `faults`, a line each.
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn all() -> impl Iterator<Item = Source> {
    let paths = CRATES.iter().flat_map(|name| files(&format!("src/{name}"), ".rs"));
    paths.map(|path| source(&path))
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut faults = Vec::new();
    for source in all() {
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{}: {lines} lines; at most {MAX_LINES}", source.path));
        }
        if !source.text.starts_with("//! ") {
            faults.push(format!("{}: its first line does not say what it is (//!)", source.path));
        }
    }
    none(faults);
}

/// ruff holds how they are written, and does not count lines.
#[test]
fn files_of_the_end_to_end_suite_are_short() {
    let mut faults = Vec::new();
    let paths = files("tests/e2e", ".py");
    assert!(paths.len() > 50, "only {} files were found", paths.len());
    for path in paths {
        let lines = text(&path).lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{path}: {lines} lines; at most {MAX_LINES}"));
        }
    }
    none(faults);
}

#[derive(Default)]
struct Found {
    /// Names of functions that take too much.
    wide: Vec<String>,
    messages: Vec<String>,
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.signature(&item.sig);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.signature(&item.sig);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_lit_str(&mut self, literal: &'ast LitStr) {
        self.messages.push(literal.value());
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.tokens(item.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta
            && list.path.is_ident("error")
        {
            self.tokens(list.tokens.clone());
        }
    }
}

impl Found {
    fn signature(&mut self, signature: &syn::Signature) {
        if signature.inputs.len() > MAX_PARAMETERS {
            self.wide.push(signature.ident.to_string());
        }
    }

    /// The messages in the arguments of a macro.
    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Group(group) => self.tokens(group.stream()),
                proc_macro2::TokenTree::Literal(literal) => {
                    self.messages
                        .extend(syn::parse_str::<LitStr>(&literal.to_string()).map(|s| s.value()));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn functions_take_few_parameters() {
    let mut faults = Vec::new();
    for source in all() {
        let mut found = Found::default();
        found.visit_file(&source.syntax);
        let path = &source.path;
        let wide = found.wide.iter();
        faults.extend(wide.map(|name| format!("{path}: {name}: more than {MAX_PARAMETERS}")));
    }
    none(faults);
}

#[test]
fn messages_are_plain_english() {
    let mut faults = Vec::new();
    for source in all() {
        let mut found = Found::default();
        found.visit_file(&source.syntax);
        for message in &found.messages {
            let lower =
                message.to_lowercase().replace("there is no ", "").replace("there are no ", "");
            for (phrase, instead) in PHRASES {
                if lower.contains(phrase) {
                    faults.push(format!("{}: {message:?}: write {instead:?}", source.path));
                }
            }
        }
    }
    none(faults);
}

/// Names of the types that a file defines, and whether each is public.
fn types(source: &Source) -> impl Iterator<Item = (&syn::Ident, bool)> {
    source.syntax.items.iter().filter_map(|item| {
        let (visibility, ident) = match item {
            Item::Struct(item) => (&item.vis, &item.ident),
            Item::Enum(item) => (&item.vis, &item.ident),
            Item::Trait(item) => (&item.vis, &item.ident),
            Item::Type(item) => (&item.vis, &item.ident),
            _ => return None,
        };
        Some((ident, matches!(visibility, Visibility::Public(_))))
    })
}

/// A path through the modules tells `erofs::read::Reader` from `ext4::read::Reader`; inside
/// one directory nothing does.
#[test]
fn a_name_of_a_public_type_means_one_thing_in_a_room() {
    let mut faults = Vec::new();
    for name in CRATES {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        for (module, source) in library(name) {
            let room = module.rsplit_once("::").map_or("", |(room, _)| room);
            for (ident, _) in types(&source).filter(|(_, is_public)| *is_public) {
                let path = &source.path;
                if let Some(earlier) = known.insert(format!("{room}::{ident}"), path.clone()) {
                    faults
                        .push(format!("{name}: {ident} is a public type of {earlier} and {path}"));
                }
            }
        }
    }
    none(faults);
}

/// Whoever searches a crate for a name finds one type.
#[test]
fn a_name_of_a_type_means_one_thing_in_a_crate() {
    let mut faults = Vec::new();
    for name in UNIQUE {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        for (module, source) in library(name) {
            if module.ends_with("::tests") {
                continue;
            }
            for (ident, _) in types(&source) {
                let path = &source.path;
                // A file may have one type for each system.
                let earlier = known.insert(ident.to_string(), path.clone());
                if let Some(earlier) = earlier.filter(|earlier| earlier != path) {
                    faults.push(format!("{name}: {ident} is a type of {earlier} and {path}"));
                }
            }
        }
    }
    none(faults);
}
