//! Layers and the tree that they make.

use super::*;
use crate::budget::{Budget, Steps};
use crate::tree::inode::{Dir, Inode, Timestamp};
use crate::tree::journal::Journal;
use crate::tree::name::Name;
use crate::tree::xattrs::Xattrs;

/// A layer from lines: `d path mode`, `f path size`, `l path target`, `o path` (a
/// directory that is opaque), `w path` (whiteout), `h path target` (hard link). One
/// that does not describe each directory, or has hard links, has a journal.
fn layer(lines: &[&str]) -> Tree<Extents> {
    let mut tree = Tree::new(Stat::IMPLIED_DIR);
    tree.dir_mut(InodeId::ROOT).unwrap().implied = true;
    let mut entries = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let path = GuestPath::parse(words[1].as_bytes()).unwrap();
        let arg = words.get(2).copied().unwrap_or("0");
        let mode = u16::from_str_radix(arg, 8).unwrap_or(0o644);
        let stat = Stat { mode, uid: 1, gid: 2, mtime: Timestamp { sec: 9, nsec: 9 } };
        let kind = match words[0] {
            "d" | "o" => Kind::Dir(Dir::default()),
            "f" => Kind::File(Extents { size: arg.parse().unwrap(), runs: Default::default() }),
            "l" => Kind::Symlink(arg.as_bytes().into()),
            "h" => Kind::LowerLink(GuestPath::parse(arg.as_bytes()).unwrap()),
            "w" => Kind::Whiteout,
            other => panic!("{other}"),
        };
        entries.push((path.clone(), Inode { stat, xattrs: Xattrs::default(), kind }));
        if words[0] == "o" {
            entries.push((path, Journal::opaque()));
        }
    }
    let budget = Budget::default();
    let nothing = (std::iter::empty(), std::iter::empty());
    let mut journal = Journal::begin(&mut tree, nothing.0, nothing.1, &budget).unwrap();
    let mut needed = false;
    for (path, inode) in entries {
        let (name, parent) = path.0.split_last().unwrap();
        let parent = tree.lookup(&GuestPath(parent.to_vec()));
        needed |= parent.is_none() || matches!(inode.kind, Kind::LowerLink(_));
        journal.add(&mut tree, &path.to_bytes(), inode.clone(), &budget).unwrap();
        match (&inode.kind, parent) {
            (Kind::Dir(dir), _) if dir.opaque => {
                let id = tree.lookup(&path).unwrap();
                tree.dir_mut(id).unwrap().opaque = true;
            }
            (_, Some(parent)) => {
                let id = tree.push(inode).unwrap();
                tree.dir_mut(parent).unwrap().entries.insert(name.clone(), id);
            }
            _ => {}
        }
    }
    if needed {
        journal.store(&mut tree).unwrap();
    }
    tree
}

fn merged(layers: &[&[&str]]) -> Result<Vec<String>, MergeError> {
    let (budget, steps) = (Budget::default(), Steps::default());
    let mut merger = Merger::new(Bounds { budget: &budget, steps: &steps, max_depth: 1024 });
    for lines in layers {
        merger.add(on_device(layer(lines), DeviceId(1)))?;
    }
    let tree = merger.finish();
    let mut lines = Vec::new();
    let mut dirs = vec![(InodeId::ROOT, String::new())];
    while let Some((id, path)) = dirs.pop() {
        let dir = tree.dir(id).unwrap();
        assert!(!dir.opaque && !dir.implied || id == InodeId::ROOT);
        for (name, child) in &dir.entries {
            let name: &Name = name;
            let path = format!("{path}{name}");
            let inode = tree.inode(*child);
            lines.push(match &inode.kind {
                Kind::Dir(_) => {
                    dirs.push((*child, format!("{path}/")));
                    format!("{path}/ {:o}", inode.stat.mode)
                }
                Kind::File(extents) => format!("{path} {}", extents.size),
                Kind::Symlink(target) => format!("{path} -> {}", target.escape_ascii()),
                other => panic!("{path}: {other:?} is left"),
            });
        }
    }
    lines.sort();
    Ok(lines)
}

fn check(layers: &[&[&str]], expected: &[&str]) {
    assert_eq!(merged(layers).unwrap(), expected);
}

#[test]
fn whiteouts_hide_below_and_nothing_else() {
    check(&[&["d a 700", "f a/x 1", "f b 2"], &["w a", "w nothing"]], &["b 2"]);
    check(&[&["d a 700", "f a/x 1"], &["w a/x", "f a/y 3"]], &["a/ 700", "a/y 3"]);
    // Where there is nothing to hide, nothing is made.
    check(&[&["f b 2"], &["w new/y/x", "w new/x", "w b/x"]], &["b 2"]);
    check(&[&["f b 2"], &["d new 700", "w new/y/x"]], &["b 2", "new/ 700"]);
}

#[test]
fn an_implied_directory_keeps_what_is_below_and_is_0755_over_nothing() {
    check(
        &[&["d a 1777"], &["f a/x 1", "f n/m/x 2"]],
        &["a/ 1777", "a/x 1", "n/ 755", "n/m/ 755", "n/m/x 2"],
    );
    check(&[&["d a 1777"], &["d a 711"]], &["a/ 711"]);
}

#[test]
fn opaque_directories_and_changes_of_type_show_nothing_of_below() {
    check(&[&["d a 700", "f a/x 1"], &["o a 711", "f a/y 2"]], &["a/ 711", "a/y 2"]);
    check(&[&["d a 700", "f a/x 1"], &["f a 5"], &["d a 711"]], &["a/ 711"]);
    check(&[&["f a 5"], &["f a/x 1"]], &["a/ 755", "a/x 1"]);
}

#[test]
fn entries_go_where_a_link_below_leads() {
    let base: &[&str] = &["d usr 755", "d usr/lib 711", "f usr/lib/old 1", "l lib usr/lib"];
    check(
        &[base, &["f lib/new 2", "w lib/old"]],
        &["lib -> usr/lib", "usr/ 755", "usr/lib/ 711", "usr/lib/new 2"],
    );
    // What the layer has there itself, no whiteout hides.
    check(
        &[base, &["w lib/new", "f usr/lib/new 3"]],
        &["lib -> usr/lib", "usr/ 755", "usr/lib/ 711", "usr/lib/new 3", "usr/lib/old 1"],
    );
    // Described, it replaces the link.
    check(
        &[base, &["d lib 700", "f lib/new 2"]],
        &["lib/ 700", "lib/new 2", "usr/ 755", "usr/lib/ 711", "usr/lib/old 1"],
    );
}

#[test]
fn links_on_the_way_may_climb_chain_and_dangle_but_not_circle() {
    check(
        &[
            &[
                "d a 700",
                "d a/b 711",
                "l a/up ../../../c",
                "d c 755",
                "l c/on /a/b",
                "l gone to/no/where",
            ],
            &["f a/up/on/x 1", "f gone/y 2"],
        ],
        &[
            "a/ 700",
            "a/b/ 711",
            "a/b/x 1",
            "a/up -> ../../../c",
            "c/ 755",
            "c/on -> /a/b",
            "gone -> to/no/where",
            "to/ 755",
            "to/no/ 755",
            "to/no/where/ 755",
            "to/no/where/y 2",
        ],
    );
    let circle = merged(&[&["l a b", "l b a"], &["f a/x 1"]]).unwrap_err();
    assert!(circle.to_string().starts_with("a/x: symbolic links lead in a circle"), "{circle}");
}

#[test]
fn links_to_files_below_outlive_the_first_name() {
    let base: &[&str] = &["d d 700", "f d/x 7", "l s d"];
    check(&[base, &["h y d/x", "w d/x"]], &["d/ 700", "s -> d", "y 7"]);
    check(&[base, &["h y s/x"]], &["d/ 700", "d/x 7", "s -> d", "y 7"]);
    check(&[base, &["h y s"]], &["d/ 700", "d/x 7", "s -> d", "y -> d"]);
    check(&[base, &["h y z", "h z d/x"]], &["d/ 700", "d/x 7", "s -> d", "y 7", "z 7"]);
    let nowhere = merged(&[base, &["h y d/none"]]).unwrap_err().to_string();
    assert!(nowhere.contains("y: a hard link to d/none"), "{nowhere}");
    assert!(merged(&[base, &["h y d"]]).is_err());
    assert!(merged(&[base, &["h y z", "h z y"]]).is_err());
}

#[test]
fn a_path_is_as_deep_as_its_links_lead() {
    let deep = "d/".repeat(20);
    let link = format!("l s {deep}");
    let merged = |depth| {
        let (budget, steps) = (Budget::default(), Steps::default());
        let mut merger = Merger::new(Bounds { budget: &budget, steps: &steps, max_depth: depth });
        merger.add(on_device(layer(&[&link]), DeviceId(1)))?;
        merger.add(on_device(layer(&["f s/x/y 1"]), DeviceId(2)))
    };
    merged(22).unwrap();
    let error = merged(21).unwrap_err().to_string();
    assert!(error.starts_with("s/x/y: ") && error.contains("--max-depth"), "{error}");
}

#[test]
fn what_the_merge_makes_has_a_budget() {
    let lines: Vec<String> = (0..100).map(|i| format!("f {i}/a/b/c/x 1")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let used = |limit| {
        let (budget, steps) = (Budget::new(limit), Steps::default());
        let mut merger = Merger::new(Bounds { budget: &budget, steps: &steps, max_depth: 1024 });
        let added = merger.add(on_device(layer(&lines), DeviceId(1)));
        added.map(|_| budget.used())
    };
    let all = used(u64::MAX).unwrap();
    // Directories that no entry describes, and rehearsed ones, are inodes too.
    assert!(all > 500 * 300, "{all}");
    let error = used(all / 2).unwrap_err().to_string();
    assert!(error.contains("--max-metadata-bytes"), "{error}");
}

#[test]
fn steps_through_links_have_a_limit() {
    // Each of the links goes to and fro in `d` on the way to the next one.
    let links = (0..38).map(|i| format!("l l{i} {}l{}", "d/../".repeat(810), i + 1));
    let links: Vec<String> = links.chain(["l l38 d".to_owned(), "d d 755".to_owned()]).collect();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    let merged = |limit, lines: &[&str]| {
        let (budget, steps) = (Budget::default(), Steps::new(limit));
        let mut merger = Merger::new(Bounds { budget: &budget, steps: &steps, max_depth: 1024 });
        merger.add(on_device(layer(&links), DeviceId(1)))?;
        merger.add(on_device(layer(lines), DeviceId(2)))
    };
    let once = 38 * (2 * 810 + 1);
    let lines = ["f l0/x 1", "f l0/y 1", "f l0/z 1"];
    merged(3 * once + 100, &lines).unwrap();
    // Where nothing would be hidden either, that it is not known is an error.
    for lines in [&lines[..], &["w l0/x", "w l0/y", "w l0/z"], &["h a l0/x", "f d/x 1", "w d/y"]] {
        let error = merged(2 * once, lines).unwrap_err().to_string();
        assert!(error.contains("--max-steps"), "{error}");
    }
}

#[test]
fn what_an_opaque_mark_hides_is_not_copied() {
    let mut base: Tree<Extents> = Tree::new(Stat::IMPLIED_DIR);
    let stat = Stat::IMPLIED_DIR;
    let inode = |kind| Inode { stat, xattrs: Xattrs::default(), kind };
    let dir = base.push(inode(Kind::Dir(Dir::default()))).unwrap();
    let file = base.push(inode(Kind::File(Extents::default()))).unwrap();
    let names = (0..10_000).map(|i| Name::new(format!("{i:0250}").as_bytes()).unwrap());
    base.dir_mut(dir).unwrap().entries = names.map(|name| (name, file)).collect();
    let first = base.dir(dir).unwrap().entries.keys().next().unwrap().clone();
    let d = Name::new(b"d").unwrap();
    base.dir_mut(InodeId::ROOT).unwrap().entries.insert(d.clone(), dir);
    let (budget, steps) = (Budget::new(100_000), Steps::default());
    let mut merger = Merger::over(base, Bounds { budget: &budget, steps: &steps, max_depth: 1024 });
    // What the layer has in the directory stays, and what was there is still linked to.
    let lines = ["f d/a 7", "o d", &format!("h d/b d/{first}")];
    merger.add(layer(&lines)).unwrap();
    let tree = merger.finish();
    let left: Vec<_> = tree.dir(dir).unwrap().entries.keys().map(Name::to_string).collect();
    assert_eq!(left, ["a", "b"]);
    let b = tree.lookup(&GuestPath(vec![d, Name::new(b"b").unwrap()]));
    assert_eq!(b, Some(file));
}
