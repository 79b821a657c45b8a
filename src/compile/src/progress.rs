//! What a build tells of itself while it runs.

/// A step of a build, from any of its threads. `Layers` comes first; a layer that is cached has
/// no `Read`.
#[derive(Clone, Debug)]
pub enum Event {
    /// The image is known. `bytes` of each layer are its blob's.
    Layers(Vec<LayerName>),
    /// More of a layer's blob was read.
    Read {
        /// The layer's index, from 0 for the lowest.
        layer: usize,
        /// Bytes that were read since the last such event.
        bytes: u64,
    },
    /// A layer is there: from the cache or a repository, or compiled to `bytes`.
    Layer {
        /// The layer's index, from 0 for the lowest.
        layer: usize,
        /// Whether it came from the cache, or from a repository of `--cache-from`.
        cached: bool,
        /// Bytes of its object.
        bytes: u64,
    },
    /// What goes on after the layers.
    Stage(&'static str),
    /// Something the user may want to know.
    Warning(String),
    /// Something that only those want to know who ask for more.
    Note(String),
}

/// A layer, as a reporter may show it.
#[derive(Clone, Debug)]
pub struct LayerName {
    /// The digest of the layer's blob, as text.
    pub digest: String,
    /// Bytes of the layer's blob.
    pub bytes: u64,
}

/// Shows events, from any thread.
pub trait Reporter: Sync {
    /// Shows `event`.
    fn event(&self, event: Event);
}

impl<F: Fn(Event) + Sync> Reporter for F {
    fn event(&self, event: Event) {
        self(event);
    }
}

/// Shows nothing.
#[derive(Debug)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event) {}
}
