//! Checks all that a cache of layers holds, and takes away what killed runs left.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fsimage::budget::Budget;
use fsimage::erofs::plan::Form;
use fsimage::erofs::read::Reader;
use fsimage::io::checked::Checked;
use fsimage::io::{hash, mmap, regular, temporary};

use super::record::{self, Record, Stamp};
use crate::cache::store::{Slot, layers_dir};

/// What files are called that belong to one layer: an object, its record and lock, and
/// what earlier versions of this program wrote them into.
const EXTENSIONS: [&str; 5] = ["erofs", "json", "lock", "tmp", "json.tmp"];

/// Checks every object and every record of the cache `root`; `remove` takes away what
/// is wrong. A tree may take `metadata_bytes` of memory. While a layer is checked, it is
/// locked; `say` is told who is waited for.
///
/// # Errors
/// It fails when the directory of layers cannot be opened or listed; what is wrong with an
/// object goes to `checked`.
pub fn check(
    root: &Path,
    remove: bool,
    metadata_bytes: u64,
    say: &(dyn Fn(&str) + Sync),
    checked: &mut Checked,
) -> Result<()> {
    let layers_dir = layers_dir(root);
    let Some(dir) = checked.open(root, &layers_dir)? else {
        return Ok(());
    };
    let names = dir.names().with_context(|| layers_dir.display().to_string())?;
    let mut layers = BTreeSet::new();
    for name in names {
        match layer_of(&name.to_string_lossy()) {
            Some(hex) => drop(layers.insert(hex.to_owned())),
            None if temporary::is_name(&name) => {}
            None => checked.strangers.push(layers_dir.join(name)),
        }
    }
    // A cache that cannot be written to keeps its leftovers.
    checked.leftovers += temporary::remove_left_in(dir.file()).unwrap_or(0);
    for hex in layers {
        let lock = layers_dir.join(format!("{hex}.lock"));
        match Slot::lock(&dir, hex, say) {
            Ok(slot) => one_layer(&slot, remove, metadata_bytes, checked),
            Err(error) => checked.stays(&lock, &error),
        }
    }
    Ok(())
}

/// The layer that a file called `name` belongs to.
fn layer_of(name: &str) -> Option<&str> {
    let (hex, extension) = name.split_once('.')?;
    let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let is_hex = hex.len() == 64 && hex.bytes().all(digit);
    (is_hex && EXTENSIONS.contains(&extension)).then_some(hex)
}

fn one_layer(slot: &Slot, remove: bool, metadata_bytes: u64, checked: &mut Checked) {
    for extension in ["tmp", "json.tmp"] {
        let name = slot.name(extension);
        if slot.dir.kind(name.as_ref()).is_ok() {
            checked.leftover(&slot.dir, &name);
        }
    }
    let (object, record) = (slot.name("erofs"), slot.name("json"));
    let there = |name: &str| slot.dir.kind(name.as_ref()).is_ok();
    match (there(&object), there(&record)) {
        (false, false) => {}
        // A run was killed between the two: the layer is compiled again.
        (true, false) => checked.leftover(&slot.dir, &object),
        (false, true) => checked.leftover(&slot.dir, &record),
        (true, true) => match is_right(slot, &object, &record, metadata_bytes) {
            Ok(()) => checked.good += 1,
            Err(error) => {
                checked.problem(&slot.dir, &[object.as_ref(), record.as_ref()], &error, remove);
            }
        },
    }
}

/// Whether the record is as it was written, and the object as the record says.
fn is_right(slot: &Slot, object: &str, record: &str, metadata_bytes: u64) -> Result<()> {
    let bytes =
        regular::read_at(slot.dir.file(), record, record::MAX_BYTES).context("its record")?;
    let record = Record::parse(&slot.hex, &bytes).context("its record is not as it was written")?;
    let file = regular::open_at(slot.dir.file(), object)?;
    let size = file.metadata()?.len();
    ensure!(size == record.size, "it has {size} bytes, its record says {}", record.size);
    let stamp = Stamp::of(&file)?;
    let hash = hash::of_file(&file)?;
    ensure!(hash == record.blake3, "it has the BLAKE3 {hash}, not that of its record");
    Reader::new(&mmap::file(&file)?)?.tree(Form::Object, &Budget::new(metadata_bytes))?;
    let object = slot.object_since(stamp, file, &record)?;
    // From now on, it is known to be right. Should that not be written, it is so again later.
    let _ = slot.record(&object);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_of_a_layer_are_known_by_their_names() {
        let hex = "0a".repeat(32);
        for extension in EXTENSIONS {
            assert_eq!(layer_of(&format!("{hex}.{extension}")), Some(&*hex));
        }
        for name in [&hex, "notes.txt", &format!("{hex}.txt"), &format!("{}.json", &hex[1..])] {
            assert_eq!(layer_of(name), None);
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_removed_and_leftovers_go() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = layers_dir(tmp.path());
        fs::create_dir_all(&dir).unwrap();
        let hex = |digit: &str| digit.repeat(64);
        let at = |digit: &str, extension: &str| dir.join(format!("{}.{extension}", hex(digit)));
        // Neither is an EROFS; one has a record that is none.
        for path in [at("1", "erofs"), at("1", "json"), at("2", "erofs"), at("3", "json")] {
            fs::write(path, "x").unwrap();
        }
        for path in [at("4", "tmp"), at("4", "json.tmp"), dir.join("notes.txt")] {
            fs::write(path, "x").unwrap();
        }
        for (remove, leftovers) in [(false, 4), (true, 0)] {
            let mut checked = Checked::default();
            check(tmp.path(), remove, Budget::DEFAULT, &|_| {}, &mut checked).unwrap();
            assert_eq!((checked.good, checked.leftovers), (0, leftovers));
            assert_eq!(checked.strangers, [dir.join("notes.txt")]);
            let [problem] = &checked.problems[..] else { panic!("one problem") };
            assert_eq!((&problem.path, problem.removed), (&at("1", "erofs"), remove));
            assert_eq!(at("1", "json").exists(), !remove);
        }
    }
}
