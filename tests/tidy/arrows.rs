//! Uses inside a crate flow one way.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, UseTree};

use super::source::{CRATES, Source, library};

/// A room, and what it may use.
type Room = (&'static str, &'static [&'static str]);

/// The rooms of the crates that have some, and those rooms and files of the same crate that
/// each may use. What has no line here may use nothing of its crate.
const ROOMS: [(&str, &[Room]); 2] = [
    (
        "fsimage",
        &[
            ("digest", &["units"]),
            ("erofs", &["budget", "digest", "fields", "io", "tree", "units", "xattr"]),
            ("ext4", &["budget", "digest", "fields", "io", "tree", "units", "xattr"]),
            ("io", &["digest", "units"]),
            ("tree", &["budget", "units"]),
            ("xattr", &["tree"]),
        ],
    ),
    (
        "compile",
        &[
            ("build", &["artifact", "cache", "layer", "manifest", "patch", "progress"]),
            ("manifest", &["patch"]),
            ("patch", &["layer"]),
            ("provenance", &["manifest"]),
            ("transfer", &["artifact", "cache", "provenance"]),
        ],
    ),
];

/// Paths that a file uses, as module paths of its crate.
struct Uses<'s> {
    module: &'s str,
    modules: &'s BTreeMap<String, Source>,
    found: BTreeSet<String>,
    /// How many modules inside the file surround the present item.
    depth: usize,
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test")
    })
}

impl Uses<'_> {
    /// Takes down the module that the path `segments` leads into.
    fn path(&mut self, segments: &[String]) {
        let own: Vec<&str> = self.module.split("::").filter(|part| !part.is_empty()).collect();
        let supers = segments.iter().take_while(|part| *part == "super").count();
        let (mut at, rest) = match segments.first().map(String::as_str) {
            Some("crate") => (Vec::new(), &segments[1..]),
            Some("self") => (own, &segments[1..]),
            // A module inside the file is one deeper than the file.
            Some("super") => match supers.checked_sub(self.depth) {
                Some(up) => (own[..own.len() - up].to_vec(), &segments[supers..]),
                None => return,
            },
            _ => return,
        };
        for part in rest {
            at.push(part);
            if !self.modules.contains_key(&at.join("::")) {
                at.pop();
                break;
            }
        }
        self.found.insert(at.join("::"));
    }

    fn tree(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(&path.tree, before);
                before.pop();
            }
            UseTree::Name(name) => self.leaf(&name.ident, before),
            UseTree::Rename(rename) => self.leaf(&rename.ident, before),
            UseTree::Glob(_) => self.path(before),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.tree(tree, before));
            }
        }
    }

    fn leaf(&mut self, ident: &syn::Ident, before: &mut Vec<String>) {
        before.push(ident.to_string());
        self.path(before);
        before.pop();
    }
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if is_for_tests(&item.attrs) {
            return;
        }
        self.depth += 1;
        visit::visit_item_mod(self, item);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.tree(&item.tree, &mut Vec::new());
        }
    }

    // `pub(super)` says who may use a thing, and uses none.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.path(&segments);
        visit::visit_path(self, path);
    }
}

/// The modules of its crate that each module uses, tests left out.
fn arrows(modules: &BTreeMap<String, Source>) -> BTreeMap<&str, BTreeSet<String>> {
    let of = |module: &str, source: &Source| {
        let mut uses = Uses { module, modules, found: BTreeSet::new(), depth: 0 };
        uses.visit_file(&source.syntax);
        uses.found.remove(module);
        uses.found
    };
    let is_test = |module: &str| module.ends_with("::tests");
    let files = modules.iter().filter(|(module, _)| !is_test(module));
    files.map(|(module, source)| (module.as_str(), of(module, source))).collect()
}

fn room_of(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

#[test]
fn rooms_use_only_what_lies_before_them() {
    let mut faults = Vec::new();
    for (name, rooms) in ROOMS {
        for (module, used) in arrows(&library(name)) {
            let room = room_of(module);
            // The root of a crate lists everything.
            if room.is_empty() {
                continue;
            }
            let allowed = rooms.iter().find(|(of, _)| *of == room).map_or(&[][..], |(_, to)| to);
            for other in used.iter().map(|other| room_of(other)) {
                if other != room && !allowed.contains(&other) {
                    faults.push(format!("{name}: {module} uses {other}, which {room} may not use"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn nothing_uses_the_shelf_that_it_stands_on() {
    let mut faults = Vec::new();
    for name in CRATES {
        let modules = library(name);
        for (module, used) in arrows(&modules) {
            for other in used {
                let is_above = other.is_empty() || module.starts_with(&format!("{other}::"));
                if is_above && modules[&other].is_shelf {
                    let shelf = &modules[&other].path;
                    faults.push(format!("{name}: {module} uses a name of {shelf}, which lists it"));
                }
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults (use the file that defines the name):
{}",
        faults.len(),
        faults.join(
            "
"
        )
    );
}

#[test]
fn files_do_not_use_each_other_in_a_circle() {
    for name in CRATES {
        let modules = library(name);
        let mut left = arrows(&modules);
        // Whatever uses nothing that is left lies in no circle.
        loop {
            let here: BTreeSet<String> = left.keys().map(|module| (*module).to_owned()).collect();
            left.retain(|_, used| used.iter().any(|other| here.contains(other)));
            if left.len() == here.len() {
                break;
            }
        }
        let users: BTreeSet<String> = left.values().flatten().cloned().collect();
        left.retain(|module, _| users.contains(*module));
        assert!(left.is_empty(), "{name}: these files use each other in circles: {:#?}", left);
    }
}
