//! What a word on the command line means.

use std::path::PathBuf;

use super::content::{FileKind, judge};
use super::*;

/// A tar header of v7, without a magic number, of an empty file `a`: the sums are
/// of its bytes by hand.
fn v7() -> Vec<u8> {
    let mut header = vec![0; 512];
    header[0] = b'a';
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(b"00000000000\0");
    header[136..148].copy_from_slice(b"00000000000\0");
    // 97 for the name; 7 + 7 + 7 + 11 + 11 digits of 48 and 6 + 4 + 4 of the mode;
    // 8 spaces of 32: 97 + 43 * 48 + 14 + 256 = 2431 = 04577.
    header[148..156].copy_from_slice(b"004577\0 ");
    header
}

#[test]
fn content_is_told_by_its_beginning() {
    let mut ustar = vec![0; 512];
    ustar[257..262].copy_from_slice(b"ustar");
    let mut v7_damaged = v7();
    v7_damaged[0] = b'b';
    for (start, content) in [
        (&ustar[..], FileKind::Archive),
        (&v7(), FileKind::Archive),
        (&v7_damaged, FileKind::Binary),
        (&[0; 1024], FileKind::Binary),
        (b"\x1f\x8b\x08", FileKind::Archive),
        (b"\xfd7zXZ\0", FileKind::Archive),
        (b"image: x\n", FileKind::Manifest),
        (b"\xef\xbb\xbfimage: x\n", FileKind::Manifest),
        (b"# of a manifest\nplatform: linux/amd64\nimage : x\n", FileKind::Manifest),
        (b"\"image\": x\n", FileKind::Manifest),
        (b"{\"image\": \"x\"}", FileKind::Manifest),
        (b"{\n  \"image\": \"x\"\n}", FileKind::Manifest),
        (b"services:\n  app:\n    image: x\n", FileKind::Text),
        (b"#!/bin/sh\necho images:\n", FileKind::Text),
        (b"imagery: x\n", FileKind::Text),
        (b"", FileKind::Text),
        (b"# Disk DescriptorFile\nversion=1\n", FileKind::Descriptor),
        (b"\x7fELF\x02\x01\x01\0", FileKind::Binary),
        (b"PK\x03\x04\xff", FileKind::Binary),
        (b"i\0m\0a\0g\0e\0:\0", FileKind::Binary),
    ] {
        assert_eq!(judge(start), content, "{}", start.escape_ascii());
    }
}

/// A directory with files to be found; words are relative to it by an absolute path.
struct Place(tempfile::TempDir);

impl Place {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn meaning(&self, name: &str) -> Result<Meaning, BadWord> {
        meaning(self.path(name).as_os_str())
    }
}

#[test]
fn a_file_is_what_its_content_says() {
    let place = Place::new(&[
        ("hello.txt", b"image: x\n"),
        ("empty.yaml", b""),
        ("archive.yaml", b"\x1f\x8b\x08\0"),
        ("layout/oci-layout", b"{}"),
        ("layout/index.json", b"{}"),
        ("skopeo/manifest.json", b"{}"),
        ("skopeo/version", b"Directory Transport Version: 1.1\n"),
        ("bundle/bundle.json", b"{}"),
        ("bundle/bundle.vmdk", b"# Disk DescriptorFile\n"),
        ("other/file", b"\x7fELF\0"),
    ]);
    let is = |name: &str| match place.meaning(name).map(|found| found.word) {
        Ok(Word::Manifest(path)) if path == place.path(name) => "manifest".to_owned(),
        Ok(Word::Image(image)) => {
            let ImageRef::Files(files) = &*image else { panic!("{name}: {image}") };
            assert_eq!(files.path, place.path(name));
            let text = image.to_string();
            text.split(':').next().unwrap().to_owned()
        }
        Ok(other) => panic!("{name}: {other:?}"),
        Err(error) => error.to_string().replace(&format!("{}/", place.0.path().display()), ""),
    };
    assert_eq!(is("hello.txt"), "manifest");
    assert_eq!(is("empty.yaml"), "manifest");
    assert_eq!(is("archive.yaml"), "archive");
    assert_eq!(is("layout"), "oci");
    assert_eq!(is("skopeo"), "dir");
    assert!(is("bundle").contains("rootfs-boot starts it"));
    assert!(is("bundle/bundle.vmdk").contains("rootfs-boot starts it"));
    assert!(is("other").starts_with("other is a directory, but"));
    assert!(is("other/file").starts_with("other/file is neither a manifest"));
    assert_eq!(is("none"), "none: there is no such file");
    assert_eq!(is("other/file/x"), "other/file/x: there is no such file");
}

#[test]
fn what_is_no_file_is_a_reference_unless_it_looks_like_one() {
    let of = |text: &str| meaning(OsStr::new(text)).map_err(|error| error.to_string());
    for text in [
        "python",
        "python:3.12-slim",
        "localhost:5000/a/b",
        "docker.io/library/x@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "docker://hello.yaml",
        "oci:nowhere:latest",
        "docker-archive:nowhere.tar",
    ] {
        let mut image: ImageRef = text.parse().unwrap();
        image.resolve(Path::new(""));
        let image = Word::Image(Box::new(image));
        assert_eq!(of(text), Ok(Meaning { word: image, note: None }), "{text}");
    }
    assert_eq!(of("-").unwrap().word, Word::Stdin);
    for (text, words) in [
        ("hello.yml", &["there is no such file", "docker://hello.yml"][..]),
        ("manifests/none.yaml", &["there is no such file"]),
        ("image.tar.xz", &["there is no such file"]),
        ("./python", &["./python: there is no such file"]),
        ("/python", &["there is no such file"]),
        ("~/python", &["there is no such file"]),
        ("image.tar:1.0", &["archive:FILE:NAME"]),
        ("Python", &["names no image", "no file of that name"]),
        ("", &["no file of that name"]),
        ("oci:", &["names no image"]),
    ] {
        let error = of(text).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
    }
}
