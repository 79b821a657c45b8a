//! The journal: a file of its own, of which only the first block is written.
//!
//! Its `s_start` of 0 says that nothing is to be replayed, so what the other
//! blocks hold is never read before the kernel has written it.

use super::disk::BLOCK;

/// Blocks of the journal that a file system of `blocks` blocks gets: the
/// steps of mke2fs, 4 MiB below 128 MiB up to 1 GiB from 128 GiB on.
pub(super) fn blocks(blocks: u32) -> u32 {
    const MIB: u32 = 256;
    match blocks / MIB {
        0..128 => 4 * MIB,
        128..1024 => 16 * MIB,
        1024..2048 => 32 * MIB,
        2048..16_384 => 64 * MIB,
        16_384..32_768 => 128 * MIB,
        32_768..65_536 => 256 * MIB,
        65_536..131_072 => 512 * MIB,
        _ => 1024 * MIB,
    }
}

/// The first block of a journal of `blocks` blocks with nothing in it.
///
/// `struct journal_superblock_s` of Linux `include/linux/jbd2.h`, the only
/// record here that is big-endian. Without a checksum feature in it, it has
/// no sum; the kernel turns the feature on at the first mount.
pub(super) fn superblock(blocks: u32, uuid: &[u8; 16]) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    let mut put = |at: usize, value: u32| out[at..at + 4].copy_from_slice(&value.to_be_bytes());
    put(0x00, 0xc03b_3998); // h_magic
    put(0x04, 4); // h_blocktype: superblock, version 2
    put(0x0c, BLOCK as u32); // s_blocksize
    put(0x10, blocks); // s_maxlen
    put(0x14, 1); // s_first: the log begins behind this block
    put(0x18, 1); // s_sequence: of the first transaction to come
    put(0x40, 1); // s_nr_users
    out[0x30..0x40].copy_from_slice(uuid);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_grows_with_the_file_system() {
        let mib = |n: u32| blocks(n * 256) / 256;
        assert_eq!([16, 127, 128, 4096].map(mib), [4, 4, 16, 64]);
        assert_eq!([100 << 10, 128 << 10].map(mib), [512, 1024]);
        assert_eq!(blocks(u32::MAX), 1 << 18);
    }
}
