//! `include`: the patches of another file.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Deserialize;

use super::operation::Operation;
use crate::patch::work::Work;

/// A file of the host that holds a list of patches.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Include(pub PathBuf);

impl Operation for Include {
    fn title(&self) -> (&'static str, String) {
        ("include", self.0.display().to_string())
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &mut Work<'_>) -> Result<()> {
        // A manifest that was read has what the file holds in the place of this.
        bail!("only a manifest that is read from a file or text can include patches")
    }
}
