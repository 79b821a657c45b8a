//! Values of xattrs as a manifest writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fsimage::xattr::{self, MAX_NAME, Refused, acl};

use super::capability;

/// An xattr that no file can have, or a value that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadXattr {
    /// The name is in no namespace that a file of the upper can have, or is too long.
    #[error("{0:?} is not a name of an xattr (user., trusted., security. and a name, or an ACL)")]
    Name(String),
    /// The name is in `trusted.overlay.`.
    #[error("{0}: overlayfs's own, which a guest would take for its bookkeeping")]
    Overlay(String),
    /// What stands behind `base64:` is not base64.
    #[error("{name}: {text:?} is not base64")]
    Base64 {
        /// The name of the xattr.
        name: String,
        /// What stands behind `base64:`.
        text: String,
    },
    /// The value is not capabilities of a file.
    #[error("{name}: {what}")]
    Capability {
        /// The name of the xattr.
        name: String,
        /// What is wrong, for the user.
        what: String,
    },
    /// The value of an ACL is text, or no ACL in binary form.
    #[error("{0}: no ACL; its value is binary, base64:… of what getfattr -e base64 shows")]
    Acl(String),
}

const ACLS: [&str; 2] = [acl::ACCESS, acl::DEFAULT];

/// Checks that a file of an upper can have an xattr of this name.
pub(crate) fn check_name(name: &str) -> Result<(), BadXattr> {
    if name.starts_with("trusted.overlay.") {
        return Err(BadXattr::Overlay(name.into()));
    }
    let known = ["user.", "trusted.", "security."]
        .iter()
        .any(|space| name.strip_prefix(space).is_some_and(|rest| !rest.is_empty()));
    if !(known || ACLS.contains(&name)) || name.len() > MAX_NAME || name.contains('\0') {
        return Err(BadXattr::Name(name.into()));
    }
    Ok(())
}

/// The bytes that `text` means as the value of the xattr `name`.
///
/// # Errors
/// It fails when a file of the upper cannot have the xattr `name`, or `text` is not a value of
/// it.
pub fn xattr_value(name: &str, text: &str) -> Result<Vec<u8>, BadXattr> {
    check_name(name)?;
    if let Some(encoded) = text.strip_prefix("base64:") {
        let bad = |_| BadXattr::Base64 { name: name.into(), text: encoded.into() };
        let value = STANDARD.decode(encoded).map_err(bad)?;
        let refused = |why| match why {
            Refused::Acl => BadXattr::Acl(name.into()),
            Refused::Capability => {
                let what = "not as Linux stores a file's capabilities".into();
                BadXattr::Capability { name: name.into(), what }
            }
            _ => BadXattr::Name(name.into()),
        };
        xattr::check(name.as_bytes(), &value).map_err(refused)?;
        return Ok(value);
    }
    if name == xattr::CAPABILITY {
        let bad = |what| BadXattr::Capability { name: name.into(), what };
        return capability::parse(text).map_err(bad);
    }
    if ACLS.contains(&name) {
        return Err(BadXattr::Acl(name.into()));
    }
    Ok(text.as_bytes().to_vec())
}
