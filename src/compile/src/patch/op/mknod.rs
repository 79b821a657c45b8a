//! `mknod`: a device or a fifo.

use anyhow::{Result, anyhow, bail};
use bundle::boot::lenient::{Flag, Int};
use fsimage::tree::{Kind, Rdev};
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_path};
use crate::patch::change::ChangeKind;
use crate::patch::mode::Mode;
use crate::patch::owner::Owner;
use crate::patch::resolve::{Last, Parents};
use crate::patch::shown::{kind_name, shown};
use crate::patch::work::Work;

/// Makes a device or a fifo.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mknod {
    /// The device or fifo: a guest path.
    pub path: String,
    /// What to make: char, block or fifo.
    pub kind: NodeKind,
    /// Of a device.
    #[serde(default)]
    pub major: Option<Int<u32>>,
    /// Of a device.
    #[serde(default)]
    pub minor: Option<Int<u32>>,
    /// Default: 0644.
    pub mode: Option<Mode>,
    /// Default: 0:0.
    pub owner: Option<Owner>,
    /// Make directories that are missing above it, as 0755 and 0:0.
    #[serde(default)]
    pub parents: Flag,
}

/// What `mknod` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A fifo, which has no device number.
    Fifo,
}

impl Operation for Mknod {
    fn title(&self) -> (&'static str, String) {
        ("mknod", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_path(&self.path)?;
        match (self.kind, self.major, self.minor) {
            (NodeKind::Fifo, None, None) => Ok(()),
            (NodeKind::Fifo, ..) => bail!("a fifo has no major and minor"),
            (NodeKind::Char, Some(Int(0)), Some(Int(0))) => {
                bail!("a character device 0:0 is overlayfs's whiteout")
            }
            (_, Some(Int(0..=0xfff)), Some(Int(0..=0xf_ffff))) => Ok(()),
            (_, Some(_), Some(_)) => bail!("Linux has majors up to 4095 and minors up to 1048575"),
            _ => bail!("a device needs major and minor"),
        }
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let found = work.find(self.path.as_bytes(), Last::Keep, Parents::of(self.parents))?;
        if let Some(id) = found.id {
            let kind = kind_name(&work.tree.inode(id).kind);
            bail!("{} is there and is {kind}", shown(&found.path));
        }
        let rdev = || {
            let number = |field: Option<Int<u32>>| field.map_or(0, |Int(number)| number);
            let (major, minor) = (number(self.major), number(self.minor));
            Rdev::new(major.into(), minor.into())
                .ok_or_else(|| anyhow!("Linux has no device {major}:{minor}"))
        };
        let kind = match self.kind {
            NodeKind::Char => Kind::Char(rdev()?),
            NodeKind::Block => Kind::Block(rdev()?),
            NodeKind::Fifo => Kind::Fifo,
        };
        let owner = work.owner(self.owner.as_ref(), (0, 0))?;
        let mode = self.mode.as_ref().map_or(0o644, |mode| mode.apply(0o644, false));
        let inode = work.fresh(mode, owner, kind);
        work.make_at(&found, ChangeKind::Made, inode)?;
        Ok(())
    }
}
