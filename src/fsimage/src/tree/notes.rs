//! What a user may want to know of a layer, as the merge finds it out.

use super::weight::Weigh as _;
use crate::tree::name::GuestPath;

/// Bytes of memory for the notes of all layers of an image. The index has room for a part of them
/// only, and a hostile layer can cause a note of 48 KiB with each of its names.
const MAX_BYTES: u64 = 16 << 20;

/// What a user may want to know of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Directories that the layer names through a symbolic link of a layer
    /// below, and where their entries went.
    pub through_links: Vec<(GuestPath, GuestPath)>,
    /// Paths that became directories although the layer has another file there, because the path of
    /// a later entry goes through it.
    pub over_files: Vec<GuestPath>,
    /// Xattrs that were not taken over: path, and names joined by NUL.
    pub dropped_xattrs: Vec<(GuestPath, Box<[u8]>)>,
    /// How many there are beyond those that are kept.
    pub left_out: u64,
    /// Bytes of those that are kept.
    bytes: u64,
    /// Bytes of the notes of all layers so far.
    before: u64,
}

impl Notes {
    /// No notes yet, of the layer above the one with `lower`.
    pub(super) fn above(lower: &Self) -> Self {
        Self { before: lower.before + lower.bytes, ..Self::default() }
    }

    /// Empty notes with the counts of these.
    pub(super) fn counts(&self) -> Self {
        Self { bytes: self.bytes, before: self.before, ..Self::default() }
    }

    /// Whether a note of these paths, and so many bytes more, is kept.
    fn keeps(&mut self, paths: &[&GuestPath], more: usize) -> bool {
        let bytes = paths.iter().map(|path| path.weight()).sum::<u64>() + more as u64;
        let keeps = self.before + self.bytes + bytes <= MAX_BYTES;
        self.bytes += if keeps { bytes } else { 0 };
        keeps
    }

    pub(super) fn through_link(&mut self, path: &GuestPath, to: &GuestPath) {
        if self.keeps(&[path, to], 0) {
            self.through_links.push((path.clone(), to.clone()));
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn over_file(&mut self, path: &GuestPath) {
        if self.keeps(&[path], 0) {
            self.over_files.push(path.clone());
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn dropped_xattrs(&mut self, path: &GuestPath, names: &[u8]) {
        if self.keeps(&[path], names.len()) {
            self.dropped_xattrs.push((path.clone(), names.into()));
        } else {
            self.left_out += 1;
        }
    }

    /// Forgets all that was noted.
    pub(super) fn forget(&mut self) {
        *self = Self { before: self.before, ..Self::default() };
    }

    /// Adds `other`, which began with the same layers below.
    pub(super) fn append(&mut self, mut other: Self) {
        self.through_links.append(&mut other.through_links);
        self.over_files.append(&mut other.over_files);
        self.dropped_xattrs.append(&mut other.dropped_xattrs);
        self.left_out += other.left_out;
        self.bytes += other.bytes;
    }

    /// Puts them in order, each once.
    pub(super) fn sort(&mut self) {
        self.through_links.sort();
        self.through_links.dedup();
        self.over_files.sort();
        self.over_files.dedup();
        self.dropped_xattrs.sort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_beyond_what_an_index_can_hold_are_counted_alone() {
        let path = GuestPath::parse("d/".repeat(1000).as_bytes()).unwrap();
        let mut notes = Notes::default();
        for _ in 0..1000 {
            notes.through_link(&path, &path);
            notes.over_file(&path);
            notes.dropped_xattrs(&path, &[0; 5000]);
        }
        let kept = notes.through_links.len() + notes.over_files.len() + notes.dropped_xattrs.len();
        assert!(kept > 100 && notes.bytes <= MAX_BYTES);
        assert_eq!(kept as u64 + notes.left_out, 3000);
        // The layers above have what is left.
        let mut above = Notes::above(&notes);
        (0..100).for_each(|_| above.through_link(&path, &path));
        assert!(above.left_out > 0);
    }
}
