//! The names of images in layouts and archives, and which images a name means.
//!
//! Names compare in normal form, as Docker reads them: `alpine` is
//! `docker.io/library/alpine:latest`.

use std::collections::{BTreeSet, HashMap};

use fsimage::digest::Digest;

use crate::distribution::Reference;
use crate::document::Descriptor;
use crate::json::shown_list;

/// The annotation by which the index of a layout names an image.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation in which Docker 25 and containerd put the full name of an image;
/// [`REF_NAME`] then has the tag alone.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The full name that Docker reads `name` as; `None` if it is not a valid name.
pub(crate) fn normal(name: &str) -> Option<String> {
    name.parse::<Reference>().ok().map(|name| name.to_string())
}

/// Whether `name` is more than a tag.
fn is_whole(name: &str) -> bool {
    name.contains([':', '/'])
}

/// The positions in `all`, the names of each image, of those that `wanted` means: images with
/// exactly that name, else those with a name of the same normal form.
pub(crate) fn matching<'n>(all: &[Vec<&'n str>], wanted: &str) -> Vec<usize> {
    let positions = |is: &dyn Fn(&'n str) -> bool| -> Vec<usize> {
        let named = all.iter().enumerate().filter(|(_, names)| names.iter().any(|name| is(name)));
        named.map(|(i, _)| i).collect()
    };
    let exact = positions(&|name| name == wanted);
    if !exact.is_empty() {
        return exact;
    }
    match normal(wanted) {
        Some(wanted) => positions(&|name| is_whole(name) && normal(name).as_ref() == Some(&wanted)),
        None => exact,
    }
}

/// Entries of an index that are one image, perhaps for more than one platform.
pub(crate) struct Group<'d> {
    /// As a message names it; `None` if it has no name.
    pub name: Option<String>,
    pub entries: Vec<&'d Descriptor>,
}

/// Why a name means no image, or more than one.
pub(crate) enum Unclear {
    /// Nothing has this name; the text lists the names that there are.
    Absent(String),
    /// The name is short for several; the text lists these in full.
    Ambiguous(String),
}

/// The names of an entry, the fullest first.
fn names(descriptor: &Descriptor) -> Vec<&str> {
    let name = |key| descriptor.annotations.get(key).map(String::as_str);
    [name(CONTAINERD_NAME), name(REF_NAME)].into_iter().flatten().collect()
}

/// Whether an entry has exactly the name `name`.
pub(crate) fn has(entries: &[&Descriptor], name: &str) -> bool {
    entries.iter().any(|entry| names(entry).contains(&name))
}

/// The full name of an entry, or its tag if it has nothing else; `None` if it has no name.
fn full_name(descriptor: &Descriptor) -> Option<String> {
    let names = names(descriptor);
    let whole = names.iter().find_map(|name| is_whole(name).then(|| normal(name)).flatten());
    whole.or_else(|| names.first().map(|name| (*name).to_owned()))
}

/// The entries that `wanted` means, as one group; without it, all entries, grouped by name.
pub(crate) fn groups<'d>(
    entries: &[&'d Descriptor],
    wanted: Option<&str>,
) -> Result<Vec<Group<'d>>, Unclear> {
    let Some(wanted) = wanted else {
        let mut groups: Vec<Group<'d>> = Vec::new();
        let mut known: HashMap<Option<String>, usize> = HashMap::new();
        for entry in entries {
            let name = full_name(entry);
            let group = *known.entry(name.clone()).or_insert(groups.len());
            if group == groups.len() {
                groups.push(Group { name, entries: Vec::new() });
            }
            groups[group].entries.push(entry);
        }
        return Ok(groups);
    };
    let all: Vec<Vec<&str>> = entries.iter().map(|entry| names(entry)).collect();
    let found: Vec<&Descriptor> = matching(&all, wanted).into_iter().map(|i| entries[i]).collect();
    if found.is_empty() {
        let there: BTreeSet<String> = entries.iter().filter_map(|entry| full_name(entry)).collect();
        return Err(Unclear::Absent(shown_list(&Vec::from_iter(there))));
    }
    let digests: BTreeSet<Digest> = found.iter().map(|entry| entry.digest).collect();
    if digests.len() > 1 {
        let full: BTreeSet<Option<String>> = found.iter().map(|entry| full_name(entry)).collect();
        if full.len() > 1 {
            let full: Vec<String> = full.into_iter().flatten().collect();
            return Err(Unclear::Ambiguous(shown_list(&full)));
        }
    }
    Ok(vec![Group { name: Some(wanted.to_owned()), entries: found }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &str, annotations: &[(&str, &str)]) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: Digest::of(content.as_bytes()),
            size: 0,
            annotations: annotations.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            urls: Vec::new(),
            platform: None,
        }
    }

    /// As Docker from 25 on names an image.
    fn docker(content: &str, name: &str, tag: &str) -> Descriptor {
        entry(content, &[(CONTAINERD_NAME, name), (REF_NAME, tag)])
    }

    fn found(entries: &[Descriptor], wanted: &str) -> Result<usize, String> {
        let entries: Vec<&Descriptor> = entries.iter().collect();
        match groups(&entries, Some(wanted)) {
            Ok(groups) => Ok(groups[0].entries.len()),
            Err(Unclear::Absent(there)) => Err(format!("absent: {there}")),
            Err(Unclear::Ambiguous(names)) => Err(format!("ambiguous: {names}")),
        }
    }

    #[test]
    fn every_spelling_of_a_name_finds_it() {
        let entries = [
            docker("a", "docker.io/library/alpine:3.18", "3.18"),
            docker("b", "docker.io/library/alpine:latest", "latest"),
            docker("c", "example.com:5000/x/y:1", "1"),
        ];
        for wanted in [
            "alpine:3.18",
            "library/alpine:3.18",
            "docker.io/library/alpine:3.18",
            "index.docker.io/library/alpine:3.18",
            "3.18",
            "alpine",
            "latest",
            "example.com:5000/x/y:1",
        ] {
            assert_eq!(found(&entries, wanted), Ok(1), "{wanted}");
        }
        let error = found(&entries, "alpine:3.19").unwrap_err();
        assert!(error.starts_with("absent: docker.io/library/alpine:3.18, "), "{error}");
        assert!(found(&entries, "y:1").is_err() && found(&entries, "NO NAME").is_err());
    }

    #[test]
    fn two_images_of_one_tag_need_their_full_names() {
        let entries =
            [docker("a", "docker.io/library/a:1", "1"), docker("b", "docker.io/x/b:1", "1")];
        let error = found(&entries, "1").unwrap_err();
        assert_eq!(error, "ambiguous: docker.io/library/a:1, docker.io/x/b:1");
        assert_eq!(found(&entries, "a:1"), Ok(1));
        // One image with two names is one image; a tag with two platforms as well.
        let entries =
            [docker("a", "docker.io/library/a:1", "1"), docker("a", "docker.io/x/b:1", "1")];
        assert_eq!(found(&entries, "1"), Ok(2));
        let entries = [entry("a", &[(REF_NAME, "1")]), entry("b", &[(REF_NAME, "1")])];
        assert_eq!(found(&entries, "1"), Ok(2));
    }

    #[test]
    fn what_is_called_just_that_comes_first() {
        let entries =
            [entry("a", &[(REF_NAME, "x")]), docker("b", "docker.io/library/x:latest", "latest")];
        assert_eq!(found(&entries, "x"), Ok(1));
        let all: Vec<Vec<&str>> = vec![vec!["x:latest"], vec!["y:latest", "x:2"], vec![]];
        assert_eq!(matching(&all, "x"), [0]);
        assert_eq!(matching(&all, "docker.io/library/x:2"), [1]);
        assert_eq!(matching(&all, "z"), [0; 0]);
    }
}
