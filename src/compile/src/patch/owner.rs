//! Owners as chown takes them.

use std::borrow::Cow;
use std::str::FromStr;

use bundle::boot::lenient::Text;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// Who something belongs to. What is not said stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user; `None` leaves it as it is.
    pub user: Option<Id>,
    /// The group; `None` leaves it as it is.
    pub group: Option<Group>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// A uid or gid, below 4294967295.
    Number(u32),
    /// As the image's own files know it.
    Name(String),
}

/// The group of an [`Owner`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// A group by name or number.
    Id(Id),
    /// The login group of the user.
    Login,
}

/// A text that names no owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an owner; write USER, USER:GROUP, USER: or :GROUP, by name or number below 4294967295"
)]
pub struct BadOwner(String);

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.is_empty() || text.contains([':', '\n', '\0', '/']) {
            return Err(());
        }
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self::Name(text.to_owned()));
        }
        // The largest means "leave it" to chown.
        text.parse().ok().filter(|id| *id != u32::MAX).map(Self::Number).ok_or(())
    }
}

impl FromStr for Owner {
    type Err = BadOwner;

    fn from_str(text: &str) -> Result<Self, BadOwner> {
        let id = |part: &str| part.parse::<Id>().map_err(|()| BadOwner(text.to_owned()));
        let (user, group) = match text.split_once(':') {
            None => (Some(id(text)?), None),
            Some(("", group)) => (None, Some(Group::Id(id(group)?))),
            Some((user, "")) => (Some(id(user)?), Some(Group::Login)),
            Some((user, group)) => (Some(id(user)?), Some(Group::Id(id(group)?))),
        };
        Ok(Self { user, group })
    }
}

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer)?.0.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Owner {
    fn schema_name() -> Cow<'static, str> {
        "Owner".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "USER, USER:GROUP, USER: (its login group) or :GROUP; names of the image or numbers.",
            "type": ["string", "integer"],
            "minimum": 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_and_numbers_with_and_without_a_group() {
        let owner = |user, group| Ok(Owner { user, group });
        let (app, ten) = (Id::Name("app".into()), Id::Number(10));
        assert_eq!("app".parse(), owner(Some(app.clone()), None));
        assert_eq!("10:app".parse(), owner(Some(ten.clone()), Some(Group::Id(app.clone()))));
        assert_eq!("app:".parse(), owner(Some(app), Some(Group::Login)));
        assert_eq!(":10".parse(), owner(None, Some(Group::Id(ten))));
        for bad in ["", ":", "a:b:c", "4294967295", "99999999999", "a\nb"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }
}
