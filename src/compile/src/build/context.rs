//! What every pass of one build works with.

use bundle::staging::Staging;
use oci::Image;

use crate::build::request::Request;
use crate::cache::store::Cache;
use crate::layer::limits::Budgets;
use crate::progress::{Event, Reporter};

/// A build whose image is known.
pub(super) struct Build<'b> {
    pub request: &'b Request,
    pub image: &'b Image,
    pub budgets: &'b Budgets,
    pub cache: &'b Cache,
    /// The bundle that is being made, if one is.
    pub staging: Option<&'b Staging>,
    pub reporter: &'b dyn Reporter,
}

impl Build<'_> {
    /// Tells the user something that need not end the build.
    pub(super) fn warn(&self, text: &str) {
        self.reporter.event(Event::Warning(text.to_owned()));
    }
}
