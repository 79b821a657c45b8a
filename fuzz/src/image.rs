//! Images in files and directories.

use std::fs;
use std::path::Path;

use fsimage::digest::Digest;
use oci::{Access, Image};

/// Documents of a layout at most, `index.json` among them.
const DOCUMENTS: usize = 8;

/// What is told of an image.
type Told = (Option<Digest>, Digest, Vec<(String, u64)>);

/// Opens what `name` names: it is told the same way twice, with a diff ID for each layer.
fn open(name: &str, scratch: &Path) -> Option<Told> {
    let access = Access {
        offline: true,
        documents: scratch.to_owned(),
        archive_bytes: Some(1 << 20),
        ..Access::default()
    };
    let platform = "linux/amd64".parse().expect("that is a platform");
    let reference = name.parse().expect("a form and a path");
    let told = || match Image::open(&reference, &platform, &access) {
        Ok(image) => {
            assert_eq!(image.layers.len(), image.config.rootfs().diff_ids().len());
            for layer in 0..image.layers.len() {
                let (known, blob) = (image.check_size(layer), image.blob(layer));
                assert!(known.is_ok() || blob.is_err(), "a blob of another size is read");
            }
            let layers = image.layers.iter().map(|layer| (layer.diff_id.hex(), layer.size));
            Ok((image.manifest_digest, image.config_digest, layers.collect()))
        }
        Err(error) => Err(format!("{error:#}")),
    };
    let (one, two) = (told(), told());
    assert_eq!(one, two);
    one.ok()
}

/// Opens the only image of `form` at `path`; and that its digest names the same image.
fn open_at(form: &str, path: &Path, scratch: &Path) {
    let name = format!("{form}:{}", path.display());
    let Some(told) = open(&name, scratch) else {
        return;
    };
    let pin = told.0.unwrap_or(told.1);
    assert_eq!(open(&format!("{name}@{pin}"), scratch), Some(told), "by its digest");
}

/// Any bytes as what `docker save` writes.
pub fn docker_archive(input: &[u8]) {
    let dir = scratch();
    let file = dir.path().join("image.tar");
    fs::write(&file, input).expect("there is room");
    for form in ["docker-archive", "archive"] {
        open_at(form, &file, dir.path());
    }
}

/// Any bytes as the documents of a layout, `index.json` first, with NULs between them. In
/// each, `$N` is the digest and `#N` the size of document `N`, which comes later: else nothing
/// would ever lead from one to the next.
pub fn layout(input: &[u8]) {
    let dir = scratch();
    let blobs = dir.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("there is room");
    let documents: Vec<&[u8]> = input.splitn(DOCUMENTS, |byte| *byte == 0).collect();
    let mut known: Vec<Option<(Digest, usize)>> = vec![None; documents.len()];
    for (i, document) in documents.iter().enumerate().rev() {
        let bytes = filled_in(document, &known);
        let digest = Digest::of(&bytes);
        let path = if i == 0 { dir.path().join("index.json") } else { blobs.join(digest.hex()) };
        fs::write(path, &bytes).expect("there is room");
        known[i] = Some((digest, bytes.len()));
    }
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("the same");
    open_at("oci", dir.path(), dir.path());
}

/// `document` with digests and sizes in their places.
fn filled_in(document: &[u8], known: &[Option<(Digest, usize)>]) -> Vec<u8> {
    let mut filled = Vec::new();
    let mut rest = document;
    while let [sign, behind @ ..] = rest {
        let named =
            || known.get(usize::from(behind.first()?.wrapping_sub(b'0'))).copied().flatten();
        let text = match (sign, named()) {
            (b'$', Some((digest, _))) => digest.to_string(),
            (b'#', Some((_, size))) => size.to_string(),
            _ => {
                filled.push(*sign);
                rest = behind;
                continue;
            }
        };
        filled.extend(text.bytes());
        rest = &behind[1..];
    }
    filled
}

/// A directory in memory, where the machine has one.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("there is room")
}
