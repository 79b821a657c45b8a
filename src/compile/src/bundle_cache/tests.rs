//! Questions, answers and what makes an answer stale.

use std::fs;
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::UNIX_EPOCH;

use fsimage::digest::Digest;
use fsimage::io::dir::Dir;
use fsimage::io::{flock, shared_dir};

use super::input::InputFile;
use super::place::*;
use super::record::*;
use super::remove;

#[test]
fn questions_and_their_parts_are_told_apart() {
    let dir = Path::new("/cache");
    let place = |asked: &[&[u8]]| BundleSlot::new(dir, asked, "x").dir;
    assert_eq!(place(&[b"a", b"b"]), place(&[b"a", b"b"]));
    assert_ne!(place(&[b"a", b"b"]), place(&[b"ab"]));
    assert_ne!(place(&[b"a", b"b"]), place(&[b"b", b"a"]));
    for (name, host) in [("python:3.12-Slim", "python-3-12-slim"), ("--", "rootfs"), ("", "rootfs")]
    {
        assert_eq!(host_name(name), host);
    }
}

#[test]
fn an_input_is_as_it_was_until_its_content_changes() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/file"), "one").unwrap();
    symlink("file", tree.join("sub/link")).unwrap();
    let (old, never) = (i64::MAX, i64::MIN);
    let now = || InputFile::now(&tree).unwrap();

    // By its stamps, where it is old enough, else by its contents.
    assert_eq!(now().check(old), Some(false));
    assert_eq!(now().check(never), Some(true));

    // Touched: other stamps, the same content; then these stamps hold.
    let mut input = now();
    File::open(tree.join("sub/file")).unwrap().set_modified(UNIX_EPOCH).unwrap();
    assert_eq!((input.check(old), input.check(old)), (Some(true), Some(false)));

    // Each of these is another tree, even within one tick of the clock.
    let changes: [&dyn Fn(&Path); 6] = [
        &|tree| fs::write(tree.join("sub/file"), "two").unwrap(),
        &|tree| fs::write(tree.join("sub/new"), "").unwrap(),
        &|tree| fs::rename(tree.join("sub/new"), tree.join("new")).unwrap(),
        &|tree| {
            fs::remove_file(tree.join("sub/link")).unwrap();
            symlink("elif", tree.join("sub/link")).unwrap();
        },
        &|tree| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(tree.join("new"), fs::Permissions::from_mode(0o755)).unwrap();
        },
        &|tree| fs::remove_dir_all(tree).unwrap(),
    ];
    for change in changes {
        let mut input = now();
        change(&tree);
        assert_eq!(input.check(never), None);
    }
    // Nothing is there, which is an input, too.
    let mut input = now();
    assert_eq!(input.check(old), Some(false));
    fs::write(&tree, "a file").unwrap();
    assert_eq!(input.check(old), None);
}

#[test]
fn a_record_is_refreshed_unless_another_came_or_is_coming() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = Dir::followed(tmp.path()).unwrap();
    let record = |bundle: u64| {
        let origin = Origin { digest: Digest::of(b""), daemon: None };
        AnswerRecord { version: VERSION, bundle, origin, made: 7, inputs: Vec::new() }
    };
    write_record(&dir, &record(1)).unwrap();
    let read = record_bytes(&dir).unwrap();
    let there = || read_record(&dir).map(|record| (record.bundle, record.made)).unwrap();
    refresh(&dir, &read, &AnswerRecord { made: 8, ..record(1) }).unwrap();
    assert_eq!(there(), (1, 8));
    // It is not what was read any more.
    refresh(&dir, &read, &AnswerRecord { made: 9, ..record(1) }).unwrap();
    assert_eq!(there(), (1, 8));
    let read = record_bytes(&dir).unwrap();
    write_record(&dir, &record(2)).unwrap();
    refresh(&dir, &read, &AnswerRecord { made: 9, ..record(1) }).unwrap();
    assert_eq!(there(), (2, 7));
    // Another bundle is being compiled.
    let lock = shared_dir::open_lock(&dir, "lock").unwrap().file.unwrap();
    assert!(flock::try_lock(&lock, flock::LockKind::Exclusive).unwrap());
    let read = record_bytes(&dir).unwrap();
    refresh(&dir, &read, &AnswerRecord { made: 9, ..record(2) }).unwrap();
    assert_eq!(there(), (2, 7));
}

#[test]
fn an_answer_goes_with_what_killed_runs_left_and_nothing_else_does() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    let place = Dir::followed(tmp.path()).unwrap();
    let staging = "1/.x.rootfs-compile-abcdefgh";
    let make = || {
        for dir in
            ["1/x/layers", &format!("{staging}/bundle/layers"), "1/.y.rootfs-compile-abcdefgh"]
        {
            fs::create_dir_all(at(dir)).unwrap();
        }
        for file in ["1/x/upper.ext4", "1/x/bundle.json", &format!("{staging}/lock")] {
            fs::write(at(file), "").unwrap();
        }
    };
    make();
    remove::answer(&place, "1".as_ref()).unwrap();
    assert!(!at("1").exists());

    for stranger in ["1/x/notes.txt", "1/notes.txt", "1/x/layers/notes.txt"] {
        make();
        fs::write(at(stranger), "mine").unwrap();
        assert!(remove::answer(&place, "1".as_ref()).is_err(), "{stranger}");
        assert!(at(stranger).exists(), "{stranger}");
        fs::remove_dir_all(at("1")).unwrap();
    }
    // A link is no directory that has a number, and not followed.
    fs::create_dir_all(at("victim/x")).unwrap();
    symlink("victim", at("1")).unwrap();
    assert!(numbered(&place).unwrap().is_empty());
    assert!(remove::answer(&place, "1".as_ref()).is_err());
    assert!(at("victim/x").exists());
}
