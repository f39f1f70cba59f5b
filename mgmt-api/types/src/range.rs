//! Ranges of addresses, one address included.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::{self, Expects};

/// A range of addresses, written `10.0.1.0/24`, or one address, written `10.0.1.11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressRange(IpNet);

impl AddressRange {
    /// As a network; one address has the longest prefix of its family.
    pub const fn net(self) -> IpNet {
        self.0
    }

    /// True when it holds `address`.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl From<IpNet> for AddressRange {
    /// Bits behind the prefix are cleared.
    fn from(net: IpNet) -> Self {
        Self(net.trunc())
    }
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither an address nor a range.
    #[error("it is neither an address nor a range; write 10.0.1.11, 10.0.1.0/24 or fd00:1::/64")]
    Neither,
    /// Bits are set behind the prefix.
    #[error("the range begins at {0}; write {0}")]
    Bits(IpNet),
}

impl Expects for RangeError {
    fn expected(&self) -> String {
        match self {
            Self::Neither => {
                "an address or a range, such as 10.0.1.11, 10.0.1.0/24 or fd00:1::/64".to_owned()
            }
            Self::Bits(net) => format!("a range written with its network address: {net}"),
        }
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(IpNet::from(address)));
        }
        let net: IpNet = text.parse().map_err(|_| RangeError::Neither)?;
        if net.trunc() == net { Ok(Self(net)) } else { Err(RangeError::Bits(net.trunc())) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

impl Serialize for AddressRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, "an address or a range, such as 10.0.1.11 or 10.0.1.0/24")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_a_range_too() {
        for (text, net) in [
            ("10.0.1.11", "10.0.1.11/32"),
            ("10.0.1.0/24", "10.0.1.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1", "fd00::1/128"),
            ("fd00:1::/64", "fd00:1::/64"),
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!(range.net(), net.parse::<IpNet>().unwrap());
            assert_eq!(range.to_string(), text);
        }
        assert_eq!(
            "10.0.1.5/24".parse::<AddressRange>(),
            Err(RangeError::Bits("10.0.1.0/24".parse().unwrap()))
        );
        assert_eq!("10.0.1".parse::<AddressRange>(), Err(RangeError::Neither));
    }
}
