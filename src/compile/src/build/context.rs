//! What all passes of one build share.

use bundle::staging::Staging;
use oci::Image;

use crate::build::request::Request;
use crate::cache::store::Cache;
use crate::layer::limits::Budgets;
use crate::progress::{Event, Reporter};

/// A build whose image was found.
pub(super) struct Build<'b> {
    pub request: &'b Request,
    pub image: &'b Image,
    pub budgets: &'b Budgets,
    pub cache: &'b Cache,
    /// The bundle that is being made; None in a preview.
    pub staging: Option<&'b Staging>,
    pub reporter: &'b dyn Reporter,
}

impl Build<'_> {
    /// Reports something that does not end the build.
    pub(super) fn warn(&self, text: &str) {
        self.reporter.event(Event::Warning(text.to_owned()));
    }
}
