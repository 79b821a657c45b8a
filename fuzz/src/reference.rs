//! Names of images and of platforms.

use fsimage::digest::Digest;
use oci::{ImageRef, Platform};

/// Any text as the name of an image: it is shown as it was written, its name in a registry is
/// read again as the same one, and another digest can be pinned. Any text as a platform: what it is shown as means the same one.
pub fn reference(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse().as_ref(), Ok(&platform));
    }
    let Ok(image) = text.parse::<ImageRef>() else {
        return;
    };
    assert_eq!(image.to_string(), text);
    if let Some(name) = image.registry_name() {
        // Written out in full, the name means the same.
        assert_eq!(name.to_string().parse().as_ref(), Ok(name));
    }
    let mut locked = image.clone();
    for digest in [Digest::of(b"another"), Digest::of(input)] {
        locked.lock(digest);
    }
    let mut once = image;
    once.lock(Digest::of(input));
    assert_eq!(locked, once, "the last digest counts");
}
