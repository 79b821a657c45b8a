//! libkrunfw: the guest's kernel, as a shared library.

#![expect(unsafe_code, reason = "a library is loaded and asked for its kernel")]

use std::ffi::{OsStr, c_char};
#[cfg(target_arch = "x86_64")]
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

/// The name under which libkrun loads it.
pub const NAME: &str = "libkrunfw.so.5";

/// Names a libkrunfw to use.
pub const VARIABLE: &str = "ROOTFS_BOOT_KRUNFW";

const WHERE: &str = "It is the package libkrunfw of Fedora and Homebrew, libkrunfw5 of Debian (from trixie's successor on), \
     and lies as _bundled/lib/libkrunfw.so.5.* in the wheel `microsandbox` of PyPI. \
     Name it by --krunfw or ROOTFS_BOOT_KRUNFW if it is elsewhere.";

/// The path of libkrunfw, or just its name if the system's loader knows it.
///
/// # Errors
/// When the file that is named is not there, or none is named and no libkrunfw is
/// installed.
pub fn find(asked: Option<&Path>) -> Result<PathBuf> {
    let variable = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = asked.map(Path::to_owned).or(variable) {
        ensure!(path.is_file(), "libkrunfw: {} is not there. {WHERE}", path.display());
        return std::path::absolute(&path).context("libkrunfw");
    }
    let program = std::env::current_exe().unwrap_or_default();
    let near = program
        .parent()
        .into_iter()
        .flat_map(|dir| [dir.join(NAME), dir.join("../lib").join(NAME)]);
    let local = ["/usr/local/lib", "/usr/local/lib64"].map(|dir| Path::new(dir).join(NAME));
    if let Some(path) = near.chain(local).find(|path| path.is_file()) {
        return Ok(path);
    }
    if load(OsStr::new(NAME)).is_ok() {
        return Ok(NAME.into());
    }
    bail!("libkrunfw, the guest's kernel, is not installed. {WHERE}")
}

/// Loads the library and keeps it, so that libkrun finds it by its name as well.
///
/// # Errors
/// When the loader cannot load the library at `path`.
pub fn load(path: &OsStr) -> Result<&'static libloading::Library> {
    // SAFETY: loading runs the library's constructors; libkrunfw is data and
    // three functions that return addresses, and has none.
    let library = unsafe { libloading::Library::new(path) }
        .with_context(|| format!("libkrunfw: {} does not load", path.display()))?;
    Ok(Box::leak(Box::new(library)))
}

/// The guest's kernel as it stands in memory.
struct Kernel {
    bytes: &'static [u8],
    /// Where its first byte belongs, in the guest's physical memory.
    #[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "the image says it itself"))]
    load: u64,
}

fn kernel(path: &OsStr) -> Result<Kernel> {
    type GetKernel = unsafe extern "C" fn(*mut u64, *mut u64, *mut usize) -> *const c_char;
    let library = load(path)?;
    let (mut load, mut entry, mut size) = (0, 0, 0);
    // SAFETY: the symbol has this signature in every libkrunfw 5, and returns
    // the address of `size` bytes that live as long as the library, which is
    // never unloaded.
    let bytes = unsafe {
        let get = library
            .get::<GetKernel>(b"krunfw_get_kernel\0")
            .context("libkrunfw: no kernel in it")?;
        let start = get(&mut load, &mut entry, &mut size);
        ensure!(!start.is_null() && size > 0, "libkrunfw: its kernel is empty");
        std::slice::from_raw_parts(start.cast::<u8>(), size)
    };
    Ok(Kernel { bytes, load })
}

/// Type of the ELF note that names a kernel's 32-bit entry point: PVH, see the
/// kernel's include/xen/interface/elfnote.h.
#[cfg(target_arch = "x86_64")]
const PVH_NOTE: u32 = 18;

/// The kernel as a file that qemu starts: as it is, an arm64 `Image`.
///
/// # Errors
/// When libkrunfw does not load or has no kernel, or `out` cannot be written.
#[cfg(target_arch = "aarch64")]
pub fn write_kernel(path: &OsStr, out: &mut impl std::io::Write) -> Result<()> {
    Ok(out.write_all(kernel(path)?.bytes)?)
}

/// The kernel as a file that qemu starts: an ELF with one segment for all of it,
/// and the note with its entry.
///
/// # Errors
/// When libkrunfw does not load or has no kernel that qemu can start, or `out` cannot be
/// written.
#[cfg(target_arch = "x86_64")]
pub fn write_kernel(path: &OsStr, out: &mut impl std::io::Write) -> Result<()> {
    const HEADER: u64 = 64;
    const PROGRAM_HEADER: u64 = 56;
    const PAGE: u64 = 4096;
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    let kernel = kernel(path)?;
    let entry = pvh_entry(kernel.bytes)
        .context("libkrunfw: its kernel cannot be started by qemu (no PVH note)")?;
    let kernel_size = kernel.bytes.len() as u64;
    let mut head = Vec::with_capacity(PAGE as usize);
    // e_ident: ELF, 64 bits, little-endian, version 1; then ET_EXEC for x86-64.
    head.write_all(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0")?;
    for n in [entry, HEADER, 0] {
        head.write_all(&n.to_le_bytes())?;
    }
    // e_flags; then the sizes and counts of headers, with no sections.
    head.write_all(&0u32.to_le_bytes())?;
    for n in [HEADER as u16, PROGRAM_HEADER as u16, 2, 0, 0, 0] {
        head.write_all(&n.to_le_bytes())?;
    }
    let note_at = HEADER + 2 * PROGRAM_HEADER;
    let mut segment = |kind: u32, flags: u32, offset: u64, address: u64, size: u64, align: u64| {
        head.extend_from_slice(&kind.to_le_bytes());
        head.extend_from_slice(&flags.to_le_bytes());
        for n in [offset, address, address, size, size, align] {
            head.extend_from_slice(&n.to_le_bytes());
        }
    };
    segment(PT_LOAD, 7, PAGE, kernel.load, kernel_size, PAGE);
    segment(PT_NOTE, 4, note_at, 0, 24, 4);
    for n in [4, 8, PVH_NOTE] {
        head.write_all(&n.to_le_bytes())?;
    }
    head.write_all(b"Xen\0")?;
    head.write_all(&entry.to_le_bytes())?;
    head.resize(PAGE as usize, 0);
    out.write_all(&head)?;
    Ok(out.write_all(kernel.bytes)?)
}

/// The entry point that the kernel's own note names.
#[cfg(target_arch = "x86_64")]
fn pvh_entry(kernel: &[u8]) -> Option<u64> {
    // Name and descriptor sizes, type, name: the descriptor has 4 or 8 bytes.
    let start_of_note = |size: u32| {
        let mut note = Vec::new();
        [4, size, PVH_NOTE].iter().for_each(|n| note.extend_from_slice(&n.to_le_bytes()));
        note.extend_from_slice(b"Xen\0");
        note
    };
    let notes = [start_of_note(4), start_of_note(8)];
    let at = kernel.chunks_exact(4).enumerate().find_map(|(i, _)| {
        let rest = &kernel[i * 4..];
        notes.iter().find(|note| rest.starts_with(note)).map(|note| i * 4 + note.len())
    })?;
    Some(u32::from_le_bytes(*kernel.get(at..)?.first_chunk()?).into())
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_the_one_of_the_note() {
        let mut kernel = vec![0u8; 4096];
        kernel[400..420].copy_from_slice(b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\x10\0\0\x01");
        assert_eq!(pvh_entry(&kernel), Some(0x100_0010));
        assert_eq!(pvh_entry(&kernel[..400]), None);
        assert_eq!(pvh_entry(&kernel[..416]), None);
    }
}
