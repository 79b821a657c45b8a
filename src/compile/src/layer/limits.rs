//! Bounds against layers that are made to exhaust the machine.

use anyhow::{Result, ensure};
use fsimage::budget::{Bounds, Budget, EXPANSION, Steps};

/// What a layer may cost at most. Past one of them it is an error, which names the limit by the
/// option of `rootfs-compile` that raises it: `--max-xattr-bytes` is [`Limits::xattr_bytes`], and
/// so with the others.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the uncompressed stream.
    pub layer_bytes: u64,
    /// Bytes of one file, holes included.
    pub file_bytes: u64,
    /// Entries of one layer.
    pub entries: u64,
    /// Bytes of a path.
    pub path: u64,
    /// Components of a path.
    pub depth: u64,
    /// Bytes of all xattrs of one inode, names included.
    pub xattr_bytes: u64,
    /// Zeros and chunk indexes that all layers have to hold for sparse files whose data
    /// lie far apart: [`fsimage::budget::MAX_SPARSE`] at most.
    pub sparse_bytes: u64,
    /// Bytes of memory for what is kept of all layers.
    pub metadata_bytes: u64,
    /// How many times as long as its blob a layer may be at no cost.
    pub expansion: u64,
    /// Bytes of all layers that are more than that.
    pub expansion_bytes: u64,
    /// Steps on the paths of all layers and patches: see [`Steps`].
    pub steps: u64,
}

/// What the layers of one build may use up together.
#[derive(Debug)]
pub struct Budgets {
    /// Bytes of memory, of [`Limits::metadata_bytes`].
    pub metadata: Budget<'static>,
    /// Of [`Limits::sparse_bytes`].
    pub sparse: Budget<'static>,
    /// Of [`Limits::expansion_bytes`].
    pub expansion: Budget<'static>,
    /// As much memory again, for compiled layers that somebody else offers: whatever these
    /// claim to need, the layers that are compiled here have their own.
    pub offered: Budget<'static>,
    /// Steps on paths, of [`Limits::steps`].
    pub steps: Steps,
}

impl Budgets {
    /// Budgets of which nothing is used yet, as large as `limits` says.
    pub fn new(limits: &Limits) -> Self {
        Self {
            metadata: Budget::new(limits.metadata_bytes),
            sparse: Budget::new(limits.sparse_bytes),
            expansion: Budget::new(limits.expansion_bytes),
            offered: Budget::new(limits.expansion_bytes),
            steps: Steps::new(limits.steps),
        }
    }

    /// What a layer's tree, or the merge of many, may use up of these budgets.
    pub fn bounds(&self, limits: &Limits) -> Bounds<'_> {
        Bounds { budget: &self.metadata, steps: &self.steps, max_depth: limits.depth }
    }
}

/// Takes `bytes` from the budget for sparse files.
///
/// # Errors
/// It fails when the budget has less than `bytes` left.
pub fn take_sparse(sparse: &Budget, bytes: u64) -> Result<()> {
    ensure!(
        sparse.take(bytes).is_ok(),
        "sparse files need more than {} bytes of zeros and chunk indexes on the disk, because \
         their data lie too far apart (raise --max-sparse-bytes to allow it)",
        sparse.limit()
    );
    Ok(())
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes: 256 << 30,
            file_bytes: 1 << 40,
            entries: 16 << 20,
            path: 4096,
            depth: 1024,
            xattr_bytes: 1 << 20,
            sparse_bytes: 16 << 30,
            metadata_bytes: Budget::DEFAULT,
            expansion: EXPANSION,
            expansion_bytes: 16 << 30,
            steps: Steps::DEFAULT,
        }
    }
}
