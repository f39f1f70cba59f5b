//! Values that are written as text: addresses, ranges, MAC addresses.
//!
//! Their own `Deserialize` says only that something did not parse; these say what was found and what would be right.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::MacAddr;

/// A value with a textual form and an example of it.
trait Textual: FromStr {
    /// What to write, with an example.
    const EXPECTED: &'static str;
}

impl Textual for IpAddr {
    const EXPECTED: &'static str = "an IP address, such as 10.0.1.11 or fd00:1::11";
}

impl Textual for IpNet {
    const EXPECTED: &'static str = "a range of addresses, such as 10.0.1.0/24 or fd00:1::/64";
}

impl Textual for MacAddr {
    const EXPECTED: &'static str = "a MAC address, such as 52:54:00:00:00:01";
}

struct Text<T>(PhantomData<T>);

impl<T: Textual> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

struct Item<T>(T);

impl<'de, T: Textual> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData)).map(Item)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData))
    }
}

fn list<'de, T: Textual, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Item<T>>::deserialize(deserializer)?.into_iter().map(|item| item.0).collect())
}

/// An error that says what would be right.
pub(crate) trait Expects {
    /// What to write instead.
    fn expected(&self) -> String;
}

/// A value whose parser knows best what would be right; `what` is what it is when no text was found at all.
pub(crate) fn parsed<'de, T, D>(deserializer: D, what: &'static str) -> Result<T, D::Error>
where
    T: FromStr,
    T::Err: Expects,
    D: Deserializer<'de>,
{
    struct Parsed<T>(&'static str, PhantomData<T>);

    impl<T: FromStr> Visitor<'_> for Parsed<T>
    where
        T::Err: Expects,
    {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse()
                .map_err(|error: T::Err| E::invalid_value(Unexpected::Str(text), &error.expected().as_str()))
        }
    }

    deserializer.deserialize_str(Parsed(what, PhantomData))
}

/// An address.
pub(crate) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    deserializer.deserialize_str(Text(PhantomData))
}

/// An address range.
pub(crate) fn subnet<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    deserializer.deserialize_str(Text(PhantomData))
}

/// A list of addresses.
pub(crate) fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    list(deserializer)
}

/// A list of address ranges.
pub(crate) fn subnets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    list(deserializer)
}

/// A list of addresses that may be absent.
pub(crate) fn maybe_addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<IpAddr>>, D::Error> {
    let items = Option::<Vec<Item<IpAddr>>>::deserialize(deserializer)?;
    Ok(items.map(|items| items.into_iter().map(|item| item.0).collect()))
}
