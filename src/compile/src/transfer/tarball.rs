//! A bundle's directory as a tar. The upper is a sparse entry of GNU's old form,
//! whose map says where its blocks are that are not zero, wherever the host's
//! file has holes.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use bundle::content::ContentHash;
use bundle::open::OpenBundle;
use bundle::opened::Place;
use bundle::sound::Depth;
use bundle::{INDEX, LAYERS, SIGNATURE};

use crate::artifact::sparse;
use crate::transfer::new_file::new_file;

const BLOCK: u64 = 512;
/// Entries of the map in the header, and in each block behind it.
const IN_HEADER: usize = 4;
const IN_BLOCK: usize = 21;

/// Writes the bundle `dir` to the new file `to`.
///
/// # Errors
/// It fails when the bundle is not sound or changes meanwhile, and when `to` is there already
/// or cannot be written.
pub fn to_tar(place: Place, to: &Path) -> Result<()> {
    let bundle = OpenBundle::open_found(place, Depth::Full)?;
    new_file(to, |out| {
        let mut tar = BufWriter::with_capacity(1 << 20, out);
        let mut directory = header(&format!("{LAYERS}/"), 0, 0o755)?;
        directory.set_entry_type(tar::EntryType::Directory);
        directory.set_cksum();
        tar.write_all(directory.as_bytes())?;
        plain(&mut tar, INDEX, bundle.json.len() as u64, &mut &bundle.json[..])?;
        if let Some(signature) = bundle.signature()? {
            plain(&mut tar, SIGNATURE, signature.len() as u64, &mut &signature[..])?;
        }
        for (path, file, content) in bundle.files() {
            if matches!(content, ContentHash::Blake3NonzeroBlocks(_)) {
                with_holes(&mut tar, path, file)?;
                continue;
            }
            let mut file = file.try_clone()?;
            file.rewind()?;
            let size = file.metadata()?.len();
            plain(&mut tar, path, size, &mut file)?;
        }
        tar.write_all(&[0; 2 * BLOCK as usize])?;
        tar.flush()?;
        bundle.unchanged()
    })
}

fn header(path: &str, size: u64, mode: u32) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    Ok(header)
}

fn pad(tar: &mut impl Write, size: u64) -> io::Result<()> {
    let rest = (size.next_multiple_of(BLOCK) - size) as usize;
    tar.write_all(&[0; BLOCK as usize][..rest])
}

fn plain(tar: &mut impl Write, path: &str, size: u64, from: &mut dyn io::Read) -> io::Result<()> {
    let mut header = header(path, size, 0o644)?;
    header.set_cksum();
    tar.write_all(header.as_bytes())?;
    let copied = io::copy(&mut from.take(size), tar)?;
    if copied != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    pad(tar, size)
}

fn with_holes(tar: &mut impl Write, path: &str, file: &File) -> io::Result<()> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    let size = sparse::each(file, |start, bytes| {
        let end = start + bytes.len() as u64;
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
        Ok(())
    })?;
    let stored: u64 = runs.iter().map(|run| run.end - run.start).sum();
    // An empty run at the end says how long a file is that ends in a hole.
    if runs.last().is_none_or(|last| last.end < size) {
        runs.push(size..size);
    }
    let mut header = header(path, stored, 0o644)?;
    header.set_entry_type(tar::EntryType::GNUSparse);
    let (first, rest) = runs.split_at(runs.len().min(IN_HEADER));
    if let Some(gnu) = header.as_gnu_mut() {
        for (field, run) in gnu.sparse.iter_mut().zip(first) {
            number(&mut field.offset, run.start);
            number(&mut field.numbytes, run.end - run.start);
        }
        number(&mut gnu.realsize, size);
        gnu.isextended[0] = u8::from(!rest.is_empty());
    }
    header.set_cksum();
    tar.write_all(header.as_bytes())?;
    let blocks = rest.chunks(IN_BLOCK);
    let count = blocks.len();
    for (i, part) in blocks.enumerate() {
        let mut block = [0; BLOCK as usize];
        for (entry, run) in block.chunks_exact_mut(24).zip(part) {
            let (offset, len) = entry.split_at_mut(12);
            number(offset, run.start);
            number(len, run.end - run.start);
        }
        block[504] = u8::from(i + 1 < count);
        tar.write_all(&block)?;
    }
    sparse::each(file, |_, bytes| tar.write_all(bytes))?;
    pad(tar, stored)
}

/// A number of 12 bytes: octal digits, or GNU's binary form where they are too few.
fn number(field: &mut [u8], value: u64) {
    if value < 1 << 33 {
        let text = format!("{value:011o}\0");
        field.copy_from_slice(text.as_bytes());
    } else {
        field.fill(0);
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
}
