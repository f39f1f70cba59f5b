//! Names of resources and ports.
//!
//! A name is a DNS label (RFC 1123 section 2.1, RFC 1035 section 2.3.1) in lower case: it appears in URLs, socket
//! paths, interface names and, later, in DNS, and means the same in each.

/// RFC 1035 section 2.3.4: a label has at most 63 octets.
pub const MAX: usize = 63;

/// IFNAMSIZ less the terminating zero: a port's name fits an interface name, and
/// `<run-dir>/ports/<workload>.<port>.sock` fits the 107 bytes of a unix socket's path under `/run/palisade`.
pub const PORT_MAX: usize = 15;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters at all.
    #[error("is empty; write 1 to {max} characters")]
    Empty {
        /// Longest name allowed here, in characters.
        max: usize,
    },
    /// Longer than its place allows.
    #[error("has {have} characters; at most {max} are allowed")]
    TooLong {
        /// Length found, in characters.
        have: usize,
        /// Longest name allowed here, in characters.
        max: usize,
    },
    /// A character that no DNS label has, or an upper-case one.
    #[error("has {found:?} at character {at}; only a-z, 0-9 and '-' are allowed")]
    Character {
        /// The offending character.
        found: char,
        /// Its position, counted from 1.
        at: usize,
    },
    /// A hyphen at either end.
    #[error("begins or ends with '-'; begin and end with a letter or digit")]
    Edge,
}

/// Checks a resource's name: at most [`MAX`] characters.
pub fn check(name: &str) -> Result<(), NameError> {
    check_within(name, MAX)
}

/// Checks a port's name: at most [`PORT_MAX`] characters.
pub fn check_port(name: &str) -> Result<(), NameError> {
    check_within(name, PORT_MAX)
}

fn check_within(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { max });
    }
    let have = name.chars().count();
    if have > max {
        return Err(NameError::TooLong { have, max });
    }
    for (index, found) in name.chars().enumerate() {
        if !matches!(found, 'a'..='z' | '0'..='9' | '-') {
            return Err(NameError::Character { found, at: index + 1 });
        }
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err(NameError::Edge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_labels_are_names() {
        for name in ["a", "0", "web-1", "a--b", &"x".repeat(63)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_refusal_says_where_and_how_much() {
        assert_eq!(check(""), Err(NameError::Empty { max: 63 }));
        assert_eq!(check(&"x".repeat(64)), Err(NameError::TooLong { have: 64, max: 63 }));
        assert_eq!(check("webX"), Err(NameError::Character { found: 'X', at: 4 }));
        assert_eq!(check("-a"), Err(NameError::Edge));
        assert_eq!(check("a-"), Err(NameError::Edge));
        assert_eq!(check_port("a234567890123456"), Err(NameError::TooLong { have: 16, max: 15 }));
    }
}
