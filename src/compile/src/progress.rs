//! What a build tells of itself while it runs.

/// A step of a build.
#[derive(Clone, Debug)]
pub enum Event {
    /// The image is known. `bytes` of each layer are its blob's.
    Layers(Vec<LayerName>),
    /// More of a layer's blob was read.
    Read { layer: usize, bytes: u64 },
    /// A layer is there: from the cache, or compiled to `bytes`.
    Layer { layer: usize, cached: bool, bytes: u64 },
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
    pub digest: String,
    pub bytes: u64,
}

/// Shows events, from any thread.
pub trait Reporter: Sync {
    fn event(&self, event: Event);
}

/// Shows nothing.
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event) {}
}
