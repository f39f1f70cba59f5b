//! Who stands at one side of a connection.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::range::RangeError;
use crate::text::{self, Expects};
use crate::{AddressRange, name};

/// One side of a connection as a policy names it: a group's name, `any`, an address or a range.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Everybody.
    Any,
    /// The workloads and addresses of a group.
    Group(String),
    /// The addresses of a range.
    Range(AddressRange),
}

/// The name that stands for everybody; no group may have it.
pub const ANY: &str = "any";

impl Peer {
    /// The group it names.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Group(name) => Some(name),
            Self::Any | Self::Range(_) => None,
        }
    }
}

/// Why a text names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It looks like a range and is none.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// It is nothing of the kind.
    #[error("it is neither the name of a group, nor any, nor an address or range")]
    Nothing,
}

impl Expects for PeerError {
    fn expected(&self) -> String {
        match self {
            Self::Range(error) => error.expected(),
            Self::Nothing => {
                "the name of a group, any, or an address or range such as 10.0.1.0/24".to_owned()
            }
        }
    }
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ANY {
            return Ok(Self::Any);
        }
        if text.contains('/') || text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
            return Ok(Self::Range(text.parse()?));
        }
        name::check(text).map_err(|_| PeerError::Nothing)?;
        Ok(Self::Group(text.to_owned()))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.pad(ANY),
            Self::Group(name) => f.pad(name),
            Self::Range(range) => range.fmt(f),
        }
    }
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Peer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, "the name of a group, any, or an address or range such as 10.0.1.0/24")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_group_everybody_or_a_range() {
        assert_eq!("any".parse(), Ok(Peer::Any));
        assert_eq!("web".parse(), Ok(Peer::Group("web".into())));
        assert_eq!("10.0.0.1".parse(), Ok(Peer::Range("10.0.0.1/32".parse().unwrap())));
        assert_eq!("fd00::/8".parse(), Ok(Peer::Range("fd00::/8".parse().unwrap())));
        for text in ["", "Web", "web db", "10.0.0.1/99", "10.0.0.5/8", "a/b", "10.0.0"] {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
    }
}
