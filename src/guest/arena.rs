//! Memory that is never given back, and strings made in it.

use core::cell::{Cell, UnsafeCell};

use crate::sys;

/// A string for the kernel: its last byte is NUL.
pub type Str = &'static [u8];

const ARENA: usize = 16 << 20;

#[repr(C, align(16))]
struct Arena {
    bytes: UnsafeCell<[u8; ARENA]>,
    taken: Cell<usize>,
}

// SAFETY: there is one thread. (An atomic counter would want helpers of a C
// library on aarch64.)
unsafe impl Sync for Arena {}

static MEMORY: Arena = Arena { bytes: UnsafeCell::new([0; ARENA]), taken: Cell::new(0) };

#[cfg(test)]
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// `len` zero bytes, for good. None is left over for nonsense: the host's side
/// keeps its configuration well below what there is.
pub fn take(len: usize) -> &'static mut [u8] {
    // The tests have threads.
    #[cfg(test)]
    let _one = ONE.lock();
    let at = MEMORY.taken.get();
    if len > ARENA - at {
        sys::exit(99);
    }
    MEMORY.taken.set(ARENA.min(at + len.next_multiple_of(16)));
    // SAFETY: the range lies in the arena and was not handed out before.
    unsafe { core::slice::from_raw_parts_mut((MEMORY.bytes.get() as *mut u8).add(at), len) }
}

/// The parts as one string, with a NUL.
pub fn join(parts: &[&[u8]]) -> Str {
    let out = take(parts.iter().map(|p| p.len()).sum::<usize>() + 1);
    let mut at = 0;
    for part in parts {
        for byte in part.iter().filter(|b| **b != 0) {
            out[at] = *byte;
            at += 1;
        }
    }
    &out[..=at]
}

/// A number in decimal.
pub fn decimal(n: u64) -> &'static [u8] {
    digits(n, 10)
}

pub fn octal(n: u16) -> &'static [u8] {
    digits(n.into(), 8)
}

fn digits(mut n: u64, base: u64) -> &'static [u8] {
    const MOST: usize = 20;
    let out = take(MOST);
    let mut at = MOST;
    loop {
        at -= 1;
        out[at] = b'0' + (n % base) as u8;
        n /= base;
        if n == 0 {
            return &out[at..];
        }
    }
}

/// The addresses of `strings` and a null behind them, as exec takes them.
pub fn addresses(strings: impl Iterator<Item = Str> + Clone) -> &'static [*const u8] {
    let count = strings.clone().count();
    let out = take((count + 1) * size_of::<*const u8>());
    // SAFETY: `take` gives zeroed memory aligned to 16 bytes, enough for `count`
    // pointers and a null.
    unsafe {
        let first = out.as_mut_ptr().cast::<*const u8>();
        for (i, string) in strings.enumerate() {
            first.add(i).write(string.as_ptr());
        }
        core::slice::from_raw_parts(first, count + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_aligned_and_its_own() {
        let (a, b) = (take(3), take(5));
        a.fill(0xff);
        assert_eq!(*b, [0; 5]);
        assert!(b.as_ptr().addr().is_multiple_of(16));
    }

    #[test]
    fn a_string_ends_with_the_only_nul_of_it() {
        assert_eq!(join(&[]), b"\0");
        assert_eq!(join(&[b"a\0", b"", b"\0b"]), b"ab\0");
    }

    #[test]
    fn numbers_have_no_zeros_in_front() {
        assert_eq!(decimal(0), b"0");
        assert_eq!(decimal(u64::MAX), b"18446744073709551615");
        assert_eq!(octal(0o1777), b"1777");
    }

    #[test]
    fn addresses_end_with_null() {
        let strings: [Str; 2] = [b"a\0", b"b\0"];
        let found = addresses(strings.into_iter());
        assert_eq!(found, [strings[0].as_ptr(), strings[1].as_ptr(), core::ptr::null()]);
        assert_eq!(addresses([].into_iter()), [core::ptr::null()]);
    }
}
