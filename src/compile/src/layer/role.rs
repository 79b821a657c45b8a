//! What an entry's path makes of it: a name, a whiteout, or bookkeeping of aufs.

use anyhow::{Result, bail, ensure};
use fsimage::tree::journal::PLINKS;
use fsimage::tree::{GuestPath, Name};

use super::limits::Limits;

/// aufs's bookkeeping: names in a layer that are neither files nor whiteouts.
const AUFS: &[u8] = b".wh..wh.";

/// What an entry is, by its path alone.
pub(super) enum Role {
    /// The root directory itself.
    Root,
    /// A name in a directory.
    Entry(GuestPath, Name),
    /// A whiteout of a name in a directory.
    Whiteout(GuestPath, Name),
    /// The directory is opaque.
    Opaque(GuestPath),
    /// A file in `.wh..wh.plnk`: what aufs's hard links lead to.
    Plink(GuestPath),
    /// Bookkeeping of aufs: nothing.
    Dropped,
}

impl Role {
    /// Reads `path` as OCI layers mean it.
    pub(super) fn parse(path: &[u8], limits: &Limits) -> Result<Self> {
        let end = path.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1);
        let begin = path[..end].iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        // A whiteout's own name may be longer than any name that it hides.
        let hidden = path[begin..end].strip_prefix(b".wh.");
        let mut path = GuestPath::parse(if hidden.is_some() { &path[..begin] } else { path })?;
        let depth = path.0.len() + usize::from(hidden.is_some());
        ensure!(
            depth as u64 <= limits.depth,
            "a path of {depth} components (raise --max-depth to allow it)"
        );
        let aufs = path.0.iter().position(|name| name.as_bytes().starts_with(AUFS));
        if let [.., dir, _] = &path.0[..]
            && dir.as_bytes() == PLINKS
            && aufs == Some(path.0.len() - 2)
        {
            return Ok(Self::Plink(path));
        }
        if aufs.is_some() {
            return Ok(Self::Dropped);
        }
        if let Some(name) = path.0.iter().find(|name| name.as_bytes().starts_with(b".wh.")) {
            bail!("the entry stands below the whiteout \"{name}\"");
        }
        match hidden {
            None => Ok(path.0.pop().map_or(Self::Root, |last| Self::Entry(path, last))),
            Some(b".wh..opq") => Ok(Self::Opaque(path)),
            Some(hidden) if hidden.starts_with(b".wh.") => Ok(Self::Dropped),
            Some(hidden) => match Name::new(hidden) {
                Ok(name) => Ok(Self::Whiteout(path, name)),
                Err(why) => bail!("a whiteout that cannot hide anything: {why}"),
            },
        }
    }
}
