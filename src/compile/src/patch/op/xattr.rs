//! `xattr`: extended attributes.

use std::collections::BTreeMap;

use anyhow::{Error, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fsimage::tree::Kind;
use fsimage::xattr::{self, CAPABILITY, Holder, MAX_NAME, Refused, acl};
use schemars::JsonSchema;
use serde::Deserialize;

use super::operation::{Operation, guest_glob};
use crate::patch::capability;
use crate::patch::change::ChangeKind;
use crate::patch::content::Content;
use crate::patch::resolve::Last;
use crate::patch::shown::kind_name;
use crate::patch::work::Work;

const ACLS: [&str; 2] = [acl::ACCESS, acl::DEFAULT];

/// Sets and removes extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Xattr {
    /// A path, or a glob as of `remove`. Symbolic links are followed.
    pub path: String,
    /// Values by name. `security.capability` takes capabilities as text
    /// (`cap_net_raw+ep`), others plain text; `base64:…` is binary.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Names to remove, which must be there.
    #[serde(default)]
    pub remove: Vec<String>,
}

impl Operation for Xattr {
    fn title(&self) -> (&'static str, String) {
        ("xattr", self.path.clone())
    }

    fn check(&self) -> Result<()> {
        guest_glob(&self.path)?;
        let is_empty = self.set.is_empty() && self.remove.is_empty();
        ensure!(!is_empty, "it sets and removes nothing");
        self.set.iter().try_for_each(|(name, text)| value(name, text).map(drop))?;
        self.remove.iter().try_for_each(|name| check_name(name))
    }

    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        for found in work.glob(&self.path, Last::Follow)? {
            let id = found.existing()?;
            let inode = work.tree.inode(id);
            let (mut stat, mut xattrs) = (inode.stat, inode.xattrs.clone());
            for (name, text) in &self.set {
                can_have(&work.tree.inode(id).kind, name)?;
                let value = value(name, text)?;
                if name == acl::ACCESS
                    && let Some(entries) = acl::parse(&value)
                {
                    // The mode and the ACL are two views of one thing.
                    stat.mode = stat.mode & 0o7000 | acl::mode(&entries);
                    if acl::is_plain(&entries) {
                        xattrs.remove(name.as_bytes());
                        continue;
                    }
                }
                xattrs.set(name.as_bytes(), value);
            }
            for name in &self.remove {
                let removed = xattrs.remove(name.as_bytes());
                removed.ok_or_else(|| anyhow!("it has no xattr {name}"))?;
            }
            (work.environment.check_xattrs)(&xattrs)?;
            let there = work.tree.inode(id);
            if (stat, &xattrs) != (there.stat, &there.xattrs) {
                let changed = work.touch(id)?;
                (changed.stat, changed.xattrs) = (stat, xattrs);
                work.note(ChangeKind::Changed, &found.path)?;
            }
        }
        Ok(())
    }
}

/// Whether Linux lets an inode of this kind have the xattr.
fn can_have(kind: &Kind<Content>, name: &str) -> Result<()> {
    // Others can, and it means nothing there.
    if name == CAPABILITY {
        let file = matches!(kind, Kind::File(_));
        ensure!(file, "{} cannot have capabilities", kind_name(kind));
    }
    let can = Holder::of(kind).can_have(name.as_bytes());
    ensure!(can, "{} cannot have {name}", kind_name(kind));
    Ok(())
}

/// The bytes that `text` means as the value of the xattr `name`.
fn value(name: &str, text: &str) -> Result<Vec<u8>> {
    check_name(name)?;
    if let Some(encoded) = text.strip_prefix("base64:") {
        let decoded = STANDARD.decode(encoded);
        let decoded = decoded.map_err(|_| anyhow!("{name}: {encoded:?} is not base64"))?;
        xattr::check(name.as_bytes(), &decoded).map_err(|refused| match refused {
            Refused::Acl => not_an_acl(name),
            Refused::Capability => anyhow!("{name}: not as Linux stores a file's capabilities"),
            _ => not_a_name(name),
        })?;
        return Ok(decoded);
    }
    ensure!(!ACLS.contains(&name), not_an_acl(name));
    match name {
        xattr::CAPABILITY => capability::parse(text).map_err(|error| anyhow!("{name}: {error}")),
        _ => Ok(text.as_bytes().to_vec()),
    }
}

fn not_a_name(name: &str) -> Error {
    anyhow!("{name:?} is not a name of an xattr (user., trusted., security. and a name, or an ACL)")
}

fn not_an_acl(name: &str) -> Error {
    anyhow!("{name}: no ACL; its value is binary, base64:… of what getfattr -e base64 shows")
}

/// Checks that a file of an upper can have an xattr of this name.
fn check_name(name: &str) -> Result<()> {
    let is_overlay = name.starts_with("trusted.overlay.");
    ensure!(!is_overlay, "{name}: overlayfs's own, which a guest would take for its bookkeeping");
    let known = ["user.", "trusted.", "security."]
        .iter()
        .any(|space| name.strip_prefix(space).is_some_and(|rest| !rest.is_empty()));
    let fits = name.len() <= MAX_NAME && !name.contains('\0');
    ensure!(fits && (known || ACLS.contains(&name)), not_a_name(name));
    Ok(())
}
