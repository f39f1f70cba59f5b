//! Where the store is, as an operator writes it: `redb`, or `etcd://host:port,host:port/prefix`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where desired state is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StoreAddress {
    /// In a file of the state directory, for one manager alone.
    #[default]
    Embedded,
    /// In etcd, where several managers share it.
    Etcd(EtcdAddress),
}

/// An etcd cluster and a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAddress {
    /// Whether its members are spoken to by TLS (`etcds://`).
    pub tls: bool,
    /// `host:port` of each member.
    pub members: Vec<String>,
    /// What every key begins with: a slash and at least one more character, no slash at the end.
    pub prefix: String,
}

/// PEM files for TLS to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreTls {
    /// The authority that signed the members' certificates; the public ones are not asked.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, when members ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Text that is no [`StoreAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{got:?} is no store: {wrong}; expected redb, or etcd://HOST:PORT,HOST:PORT/PREFIX (etcds:// for TLS)"
)]
pub struct StoreAddressError {
    /// The text.
    pub got: String,
    /// What is wrong with it.
    pub wrong: &'static str,
}

/// Where keys begin when the operator names no place.
const PREFIX: &str = "/palisade";
/// The port etcd listens on for clients.
const PORT: u16 = 2379;

impl FromStr for StoreAddress {
    type Err = StoreAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |wrong| StoreAddressError { got: text.to_owned(), wrong };
        if text == "redb" {
            return Ok(Self::Embedded);
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it names no kind of store"))?;
        let tls = match scheme {
            "etcd" => false,
            "etcds" => true,
            _ => return Err(wrong("this kind of store is not known")),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let members =
            hosts.split(',').map(|host| member(host).ok_or_else(|| wrong("a member is not HOST:PORT")));
        let path = path.trim_end_matches('/');
        if path.contains("//") || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("the prefix has an empty part, or characters that are not printable ASCII"));
        }
        let prefix = if path.is_empty() { PREFIX.to_owned() } else { format!("/{path}") };
        Ok(Self::Etcd(EtcdAddress { tls, members: members.collect::<Result<_, _>>()?, prefix }))
    }
}

/// `host:port` of a member, with etcd's own port where there is none.
fn member(text: &str) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|port| *port > 0)?),
        _ => (text, PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let fits =
        |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte) || (bare != host && byte == b':');
    (!bare.is_empty() && bare.bytes().all(fits)).then(|| format!("{host}:{port}"))
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("redb"),
            Self::Etcd(EtcdAddress { tls, members, prefix }) => {
                let scheme = if *tls { "etcds" } else { "etcd" };
                write!(f, "{scheme}://{}{prefix}", members.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_members_and_a_prefix() {
        let read = |text: &str| text.parse::<StoreAddress>().map(|address| address.to_string());
        assert_eq!(read("redb").as_deref(), Ok("redb"));
        for (text, whole) in [
            ("etcd://a", "etcd://a:2379/palisade"),
            ("etcd://a:1,b:2/", "etcd://a:1,b:2/palisade"),
            (
                "etcds://10.0.0.1:2379,[fd00::1]:99,[::1]/mesh/one/",
                "etcds://10.0.0.1:2379,[fd00::1]:99,[::1]:2379/mesh/one",
            ),
        ] {
            assert_eq!(read(text).as_deref(), Ok(whole));
            assert_eq!(read(whole).as_deref(), Ok(whole));
        }
        for text in [
            "",
            "sqlite",
            "http://a",
            "etcd://",
            "etcd://a:0",
            "etcd://a:1,,b",
            "etcd://a b",
            "etcd://fd00::1",
            "etcd://a/b//c",
            "etcd://u@a",
        ] {
            let error = read(text).expect_err(text);
            assert!(error.to_string().contains("etcd://HOST:PORT"), "{error}");
        }
    }
}
