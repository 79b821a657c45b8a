#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rootfs_fuzz::reference(input));
