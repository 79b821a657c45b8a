//! Patches on small images.

use std::io::{Seek as _, Write as _};

use fsimage::tree::extents::Extents;
use fsimage::tree::{Dir, GuestPath, Inode, Kind, Stat, Xattrs};
use fsimage::units::{BlockAddr, DeviceId, blocks_of};

use super::*;
use fsimage::tree::Timestamp;

use crate::layer::Limits;

const T: Timestamp = Timestamp { sec: 5, nsec: 0 };

/// An image from lines: `d PATH MODE`, `f PATH MODE TEXT`, `l PATH TARGET`,
/// `h PATH TARGET` (a hard link).
fn image(lines: &[&str]) -> (Tree<Extents>, Disks) {
    let mut disk = tempfile::tempfile().unwrap();
    let stat = |mode: &str| Stat {
        mode: u16::from_str_radix(mode, 8).unwrap(),
        uid: 1,
        gid: 2,
        mtime: Timestamp { sec: 1, nsec: 2 },
    };
    let mut tree = Tree::new(stat("755"));
    for line in lines {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let path = GuestPath::parse(words[1].as_bytes()).unwrap();
        let (name, parent) = path.0.split_last().unwrap();
        let parent = tree.lookup(&GuestPath(parent.to_vec())).unwrap();
        let id = if words[0] == "h" {
            tree.lookup(&GuestPath::parse(words[2].as_bytes()).unwrap()).unwrap()
        } else {
            let (mode, kind) = match words[0] {
                "d" => (words[2], Kind::Dir(Dir::default())),
                "l" => ("777", Kind::Symlink(words[2].as_bytes().into())),
                "f" => {
                    let text = words[3].replace('|', "\n");
                    let at = disk.stream_position().unwrap().next_multiple_of(4096);
                    disk.seek(std::io::SeekFrom::Start(at)).unwrap();
                    disk.write_all(text.as_bytes()).unwrap();
                    let (size, start) = (text.len() as u64, BlockAddr::from_offset(at).unwrap());
                    let len = blocks_of(size) as u32;
                    (words[2], Kind::File(Extents::contiguous(size, DeviceId(1), start, len)))
                }
                other => panic!("{other}"),
            };
            tree.push(Inode { stat: stat(mode), xattrs: Xattrs::default(), kind }).unwrap()
        };
        tree.dir_mut(parent).unwrap().entries.insert(name.clone(), id);
    }
    (tree, Disks(vec![disk.into()]))
}

/// The operations that YAML spells, each with its line.
fn patches(yaml: &str) -> Vec<Patch> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    std::fs::write(&path, format!("image: oci:x\npatches:\n{yaml}")).unwrap();
    crate::manifest::Manifest::load(&path, &BTreeMap::new()).unwrap().patches
}

fn run(lines: &[&str], yaml: &str) -> Result<Patched> {
    run_within(Limits::default(), image(lines), yaml)
}

fn run_on(image: (Tree<Extents>, Disks), yaml: &str, metadata_bytes: u64) -> Result<Patched> {
    run_within(Limits { metadata_bytes, ..Limits::default() }, image, yaml)
}

fn run_within(
    limits: Limits,
    (tree, disks): (Tree<Extents>, Disks),
    yaml: &str,
) -> Result<Patched> {
    let scratch = || Ok(tempfile::tempfile()?);
    let environment = Environment {
        time: T,
        limits: &limits,
        budgets: &crate::layer::Budgets::new(&limits),
        own: &[],
        check_xattrs: &|_| Ok(()),
        scratch: &scratch,
        records_changes: true,
    };
    let mut patches = patches(yaml);
    for patch in &mut patches {
        patch.at = Location { file: "m".into(), line: patch.at.line };
    }
    apply(tree, disks, &patches, &environment)
}

/// What the upper holds, a line each; a further name of an inode ends in `=`.
fn upper(lines: &[&str], yaml: &str) -> Vec<String> {
    let patched = run(lines, yaml).unwrap();
    let mut out = Vec::new();
    let mut dirs = vec![(InodeId::ROOT, GuestPath::default())];
    let mut seen: Vec<InodeId> = Vec::new();
    while let Some((id, path)) = dirs.pop() {
        for (name, id) in &patched.upper.dir(id).unwrap().entries {
            let path: GuestPath = path.join(name);
            let inode = patched.upper.inode(*id);
            let again = if seen.contains(id) { " =" } else { "" };
            seen.push(*id);
            let Stat { mode, uid, gid, mtime } = inode.stat;
            let stat = format!("{mode:o} {uid}:{gid} {}", mtime.sec);
            let line = match &inode.kind {
                Kind::Dir(dir) => format!("dir {stat}{}", if dir.opaque { " opaque" } else { "" }),
                Kind::File(content) => {
                    let bytes = content.read(&patched.disks).unwrap();
                    format!("file {stat} {}", bytes.escape_ascii())
                }
                Kind::Symlink(target) => format!("link {stat} {}", target.escape_ascii()),
                Kind::Whiteout => "whiteout".to_owned(),
                other => format!("{other:?}"),
            };
            out.push(format!("/{path} {line}{again}"));
            if matches!(inode.kind, Kind::Dir(_)) {
                dirs.push((*id, path));
            }
        }
    }
    out.sort();
    out
}

fn error(lines: &[&str], yaml: &str) -> String {
    match run(lines, yaml) {
        Ok(_) => panic!("no error: {yaml}"),
        Err(error) => format!("{error:#}"),
    }
}

const IMAGE: [&str; 8] = [
    "d /usr 755",
    "d /usr/bin 2751",
    "l /bin usr/bin",
    "f /usr/bin/a 4755 one",
    "h /usr/bin/b /usr/bin/a",
    "d /etc 700",
    "f /etc/conf 640 x=1|y=2|",
    "f /etc/[odd] 600 odd",
];

#[test]
fn what_changes_nothing_leaves_nothing() {
    let yaml = r#"
- write: { path: /etc/conf, content: "x=1\ny=2\n", mode: "0640" }
- append: { path: /etc/conf, content: "" }
- replace: { path: /etc/conf, find: "^x=1", with: "x=1" }
- chmod: { path: /bin/a, mode: u+s }
- chown: { path: /etc, owner: "1:2", recursive: true }
- symlink: { path: /bin, target: usr/bin }
- link: { path: /bin/b, target: /bin/a }
- mkdir: { path: /bin, parents: true }
- rename: { from: /etc, path: /e }
- rename: { from: /e, path: /etc }
- mkdir: { path: /new }
- remove: { path: /new }
- remove: { path: /none, missing: ok }
"#;
    assert_eq!(upper(&IMAGE, yaml), Vec::<String>::new());
}

#[test]
fn a_changed_file_comes_with_all_its_names_and_its_parents_as_they_were() {
    let found = upper(&IMAGE, "- append: { path: /bin/b, content: two }\n");
    let file = "file 4755 1:2 5 onetwo";
    let expected = [
        "/usr dir 755 1:2 1".to_owned(),
        "/usr/bin dir 2751 1:2 1".to_owned(),
        format!("/usr/bin/a {file}"),
        format!("/usr/bin/b {file} ="),
    ];
    assert_eq!(found, expected);
    let found = upper(&IMAGE, "- link: { path: /etc/c, target: /bin/a }\n");
    assert_eq!(found.iter().filter(|line| line.contains("file 4755 1:2 1 one")).count(), 3);
    // A name that goes leaves the others alone.
    let found = upper(&IMAGE, "- remove: { path: /bin/a }\n");
    assert_eq!(found[2..], ["/usr/bin/a whiteout"]);
}

#[test]
fn whiteouts_are_one_inode_and_other_directories_opaque() {
    let yaml = "- remove: { path: \"/usr/bin/?\" }\n- remove: { path: /etc, recursive: true }\n\
                - mkdir: { path: /etc }\n- write: { path: /etc/conf, content: new }\n- remove: { path: /bin }\n\
                - mkdir: { path: /bin }\n";
    let expected = [
        "/bin dir 755 0:0 5",
        "/etc dir 755 0:0 5 opaque",
        "/etc/conf file 644 0:0 5 new",
        "/usr dir 755 1:2 1",
        "/usr/bin dir 2751 1:2 1",
        "/usr/bin/a whiteout",
        "/usr/bin/b whiteout =",
    ];
    assert_eq!(upper(&IMAGE, yaml), expected);
    // Renamed, a directory is written out; what was below its name is not seen.
    let found = upper(&IMAGE, "- rename: { from: /etc, path: /usr/etc }\n");
    let expected = [
        "/etc whiteout",
        "/usr dir 755 1:2 1",
        "/usr/etc dir 700 1:2 1",
        "/usr/etc/[odd] file 600 1:2 1 odd",
        "/usr/etc/conf file 640 1:2 1 x=1\\ny=2\\n",
    ];
    assert_eq!(found, expected);
}

#[test]
fn paths_are_found_as_the_kernel_finds_them() {
    let lines = [
        "d /a 755",
        "l /a/up ../..",
        "l /a/abs /a/b",
        "d /a/b 755",
        "l /loop /loop",
        "f /f 644 x",
        "l /dangling /a/new",
    ];
    let found = upper(&lines, "- write: { path: /a/up/../a/abs/../b/x, content: x }\n");
    assert_eq!(found.last().unwrap(), "/a/b/x file 644 0:0 5 x");
    let found = upper(&lines, "- write: { path: /dangling, content: x }\n");
    assert_eq!(found.last().unwrap(), "/a/new file 644 0:0 5 x");
    for (op, word) in [
        ("write: { path: /loop/x, content: x }", "/loop: symbolic links lead in a circle"),
        ("write: { path: /f/x, content: x }", "/f is a file, not a directory"),
        ("write: { path: /no/x, content: x }", "there is no /no (parents: true makes it)"),
        ("write: { path: /a, content: x }", "/a is a directory, not a file"),
        ("append: { path: /dangling, content: x }", "there is no /a/new"),
        ("rename: { from: /a, path: /a/b/c }", "is inside of"),
        ("rename: { from: /f, path: /a/b, force: true }", "is a directory, /f is not"),
        ("remove: { path: / }", "the root itself"),
        ("remove: { path: /a }", "not empty"),
        ("remove: { path: \"/a/*x\" }", "nothing fits it"),
        ("mkdir: { path: /f, parents: true }", "/f is there and is a file"),
        ("link: { path: /g, target: /a }", "is a directory"),
        ("chown: { path: /f, owner: nobody }", "has no user \"nobody\""),
        ("xattr: { path: /f, remove: [user.x] }", "has no xattr user.x"),
    ] {
        let error = error(&lines, &format!("- {op}\n"));
        assert!(error.starts_with("m:3: ") && error.contains(word), "{op}: {error}");
    }
}

#[test]
fn globs_fit_names_and_directories() {
    let lines = [
        "d /d 755",
        "d /d/e 755",
        "f /d/e/x.py 644 1",
        "f /d/x.py 644 2",
        "f /d/[x] 644 3",
        "l /s d",
    ];
    let removed = |glob: &str| {
        let patched = run(&lines, &format!("- remove: {{ path: \"{glob}\", recursive: true }}\n"));
        patched.unwrap().changes[0].iter().map(|change| change.shown()).collect::<Vec<_>>()
    };
    assert_eq!(removed("/**/*.py"), ["/d/e/x.py", "/d/x.py"]);
    assert_eq!(removed("/s/*.py"), ["/d/x.py"]);
    assert_eq!(removed("/d/[x]"), ["/d/[x]"]);
    assert_eq!(removed("/d/**"), ["/d/[x]", "/d/e", "/d/x.py"]);
    assert_eq!(removed("/d/{e,none}/x*"), ["/d/e/x.py"]);
}

#[test]
fn files_are_edited_by_expression_and_by_diff() {
    let conf = |yaml: &str| upper(&IMAGE, yaml).pop().unwrap();
    let found =
        conf("- replace: { path: /etc/conf, find: \"^(.)=.$\", with: \"$1: ?\", count: 1 }\n");
    assert_eq!(found, "/etc/conf file 640 1:2 5 x: ?\\ny=2\\n");
    let found = conf("- replace: { path: /etc/conf, find: \"=\", with: \" \" }\n");
    assert_eq!(found, "/etc/conf file 640 1:2 5 x 1\\ny 2\\n");
    let few = error(&IMAGE, "- replace: { path: /etc/conf, find: \"=\", with: \" \", count: 3 }\n");
    assert!(few.contains("matches 2 times, not 3"), "{few}");
    let diff = "- diff:\n    content: |\n      --- a/etc/conf\n      +++ b/etc/conf\n      @@ -1,2 +1,2 @@\n       x=1\n      -y=WAS\n      +y=3\n";
    assert_eq!(conf(&diff.replace("WAS", "2")), "/etc/conf file 640 1:2 5 x=1\\ny=3\\n");
    let odd = error(&IMAGE, &diff.replace("WAS", "7"));
    assert!(odd.contains("/etc/conf: hunk 1 (line 3 of the diff) does not fit"), "{odd}");
    let strip = error(&IMAGE, &diff.replace("- diff:\n", "- diff:\n    strip: 3\n"));
    assert!(strip.contains("has no 3 components to strip"), "{strip}");
}

#[test]
fn a_new_account_takes_the_place_of_lines_that_have_its_name() {
    let lines = [
        "d /etc 755",
        "f /etc/passwd 644 root:x:0:0:::|",
        "f /etc/group 644 root:x:0:|a:x:5:b|",
        "f /etc/shadow 640 root:*:1::::::|app:$6$known$hash:1::::::|apple:!:::::::|app:again|",
        "f /etc/gshadow 640 app:known::|a:!::b",
    ];
    let found = upper(&lines, "- user: { name: app, groups: [a] }\n");
    let has = |line: &str| assert!(found.iter().any(|l| l == line), "{line}: {found:?}");
    has("/etc/passwd file 644 1:2 5 root:x:0:0:::\\napp:x:1000:1000::/home/app:/bin/sh\\n");
    has("/etc/group file 644 1:2 5 root:x:0:\\na:x:5:b,app\\napp:x:1000:\\n");
    has("/etc/shadow file 640 1:2 5 root:*:1::::::\\napple:!:::::::\\napp:!:0:0:99999:7:::\\n");
    has("/etc/gshadow file 640 1:2 5 a:!::b,app\\napp:!::\\n");
}

#[test]
fn another_content_has_no_capabilities() {
    let mut image = image(&IMAGE);
    let id = image.0.lookup(&GuestPath::parse(b"etc/conf").unwrap()).unwrap();
    image.0.inode_mut(id).xattrs.set(*b"security.capability", *b"c");
    image.0.inode_mut(id).xattrs.set(*b"user.a", *b"b");
    for (patch, names) in [
        ("write: { path: /etc/conf, content: y }", 1),
        ("append: { path: /etc/conf, content: y }", 1),
        ("replace: { path: /etc/conf, find: x, with: y }", 1),
        ("write: { path: /etc/conf, content: \"x=1\\ny=2\\n\", mode: \"600\" }", 2),
    ] {
        let image = (image.0.clone(), Disks(image.1.0.clone()));
        let patched = run_on(image, &format!("- {patch}\n"), 1 << 20).unwrap();
        let id = patched.upper.lookup(&GuestPath::parse(b"etc/conf").unwrap()).unwrap();
        assert_eq!(patched.upper.inode(id).xattrs.iter().len(), names, "{patch}");
    }
}

#[test]
fn what_patches_keep_is_taken_from_the_budget_of_the_build() {
    let mut lines = vec!["d /many 755".to_owned(), "f /text 644 a|b|c|".to_owned()];
    lines.extend((0..1000).map(|i| format!("f /many/{i:0>100} 644 x")));
    // Directories below each other, all of whose paths are many times their names.
    let mut deep = String::from("/deep");
    for _ in 0..60 {
        lines.push(format!("d {deep} 755"));
        deep += &format!("/{}", "d".repeat(200));
    }
    lines.push(format!("f /large 644 {}", "x|".repeat(50_000)));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let image = image(&lines);
    let with = |yaml: &str, metadata_bytes| {
        let image = (image.0.clone(), Disks(image.1.0.clone()));
        run_on(image, yaml, metadata_bytes).map(drop).map_err(|error| format!("{error:#}"))
    };
    for (patches, least) in [
        ("- chown: { path: /many, owner: \"7:7\", recursive: true }\n", 600 << 10),
        ("- chmod: { path: /many, mode: \"0711\" }\n", 100 << 10),
        ("- mkdir: { path: /many/new }\n", 100 << 10),
        ("- remove: { path: \"/many/*\" }\n", 400 << 10),
        ("- chmod: { path: /deep, mode: u+x, recursive: true }\n", 0),
        ("- chown: { path: /deep, owner: \"7:7\", recursive: true }\n", 800 << 10),
        ("- remove: { path: \"/deep/**/*.pyc\", missing: ok }\n", 300 << 10),
        ("- replace: { path: /large, find: x, with: y }\n", 200 << 10),
        ("- replace: { path: /text, find: b, with: y }\n", 0),
    ] {
        assert_eq!(with(patches, 8 << 20), Ok(()), "{patches}");
        if least > 0 {
            let error = with(patches, least).unwrap_err();
            assert!(
                error.starts_with("m:3: ") && error.contains("--max-metadata-bytes"),
                "{error}"
            );
        } else {
            assert_eq!(with(patches, 2 << 10), Ok(()), "{patches}");
        }
    }
    // What one patch holds only while it goes on, the next has again.
    let again = "- remove: { path: \"/deep/**/*.pyc\", missing: ok }\n".repeat(50)
        + &"- replace: { path: /large, find: x, with: y, count: 1 }\n".repeat(50);
    assert_eq!(with(&again, 3 << 20), Ok(()));
}

#[test]
fn what_is_below_a_directory_comes_in_order() {
    let lines = ["d /d 700", "d /d/b 700", "f /d/a 600 x", "f /d/b/c 600 x", "f /d/d 600 x"];
    let patched = run(&lines, "- chmod: { path: /d, mode: \"0755\", recursive: true }\n").unwrap();
    let changed: Vec<String> = patched.changes[0].iter().map(Change::shown).collect();
    assert_eq!(changed, ["/d", "/d/a", "/d/b", "/d/b/c", "/d/d"]);
}

#[test]
fn the_fingerprint_follows_what_the_upper_holds() {
    let of = |yaml: &str| run(&IMAGE, yaml).unwrap().fingerprint;
    let one = of("- write: { path: /x, content: 1 }\n".replace("1 }", "\"1\" }").as_str());
    assert_eq!(
        one,
        of("- append: { path: /etc/conf, content: \"\" }\n- write: { path: /x, content: \"1\" }\n")
    );
    assert_ne!(one, of("- write: { path: /x, content: \"2\" }\n"));
    assert_ne!(one, of("- write: { path: /x, content: \"1\", mode: \"600\" }\n"));
    assert_ne!(one, of("- write: { path: /y, content: \"1\" }\n"));
}

#[test]
fn steps_through_links_have_a_limit() {
    // Each of the links goes to and fro in `d` on the way to the next one.
    let links = (0..38).map(|i| format!("l l{i} {}l{}", "d/../".repeat(810), i + 1));
    let links = links.chain((0..5).map(|i| format!("l bin/{i} /l0")));
    let others = ["d d 755", "d bin 755", "l l38 d"].map(str::to_owned);
    let lines: Vec<String> = others.into_iter().chain(links).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let limits = |steps| Limits { steps, ..Limits::default() };
    // A glob passes over what leads nowhere, and `missing` too.
    for patch in [
        "- chmod: { path: '/bin/*', mode: go-w }",
        "- remove: { path: '/bin/*/none', missing: ok }",
        "- remove: { path: /bin/1/none/x, missing: ok }\n- remove: { path: /bin/2/none/x, missing: ok }",
    ] {
        run_within(limits(1 << 20), image(&lines), &format!("{patch}\n")).unwrap();
        let error =
            run_within(limits(100_000), image(&lines), &format!("{patch}\n")).err().unwrap();
        let error = format!("{error:#}");
        assert!(error.contains("--max-steps"), "{patch}: {error}");
    }
}
