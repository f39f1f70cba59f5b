//! What follows from names when it is not given: MAC addresses, IPv6 addresses, device names.
//!
//! Derived values are part of the product's behaviour: a guest keeps its address over every restart and upgrade, so
//! the functions here never change what they return. Two names may in principle derive the same MAC address; the
//! manager refuses the second as it refuses any duplicate.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::{MacAddr, name};

/// The MAC address of a port that names none: locally administered and unicast, 46 bits of hash.
pub fn mac(workload: &str, port: &str) -> MacAddr {
    let [a, b, c, d, e, f, ..] = hash(&[workload, port]).to_be_bytes();
    // IEEE 802-2014, 8.2.2: bit 0 of the first octet is group, bit 1 is locally administered.
    MacAddr([(a & 0xfc) | 0x02, b, c, d, e, f])
}

/// The interface identifier of RFC 4291 appendix A within `subnet`; none when the subnet leaves fewer than 64 bits.
pub fn ipv6(subnet: Ipv6Net, mac: MacAddr) -> Option<Ipv6Addr> {
    if subnet.prefix_len() > 64 {
        return None;
    }
    let [a, b, c, d, e, f] = mac.octets();
    let identifier = u64::from_be_bytes([a ^ 0x02, b, c, 0xff, 0xfe, d, e, f]);
    Some(Ipv6Addr::from(u128::from(subnet.network()) | u128::from(identifier)))
}

/// The name of a TAP device that names none: `<workload>.<port>` when it fits in 15 characters, else the workload's
/// first eight, a dot and six characters of hash.
pub fn device(workload: &str, port: &str) -> String {
    let full = format!("{workload}.{port}");
    if full.len() <= name::PORT_MAX {
        return full;
    }
    let head: String = workload.chars().take(8).collect();
    format!("{head}.{:06x}", hash(&[workload, port]) >> 40)
}

/// FNV-1a over the parts with a zero octet between them, then the finaliser of MurmurHash3 so that the high bits
/// depend on every octet. Not for keys or tables an attacker could fill: names are the operator's.
fn hash(parts: &[&str]) -> u64 {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ (state >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_mac_is_local_unicast_and_its_own() {
        let mut seen = std::collections::HashSet::new();
        for workload in 0..10_000 {
            let mac = mac(&format!("web-{workload}"), "eth0");
            assert_eq!(mac.octets()[0] & 0x03, 0x02);
            assert!(seen.insert(mac));
        }
        assert_ne!(mac("a", "bc"), mac("ab", "c"));
    }

    #[test]
    fn derived_values_never_change() {
        // Computed by a second implementation in Python: a guest that reboots after an upgrade finds its addresses again.
        assert_eq!(mac("web-1", "eth0").to_string(), "f6:7d:f9:29:85:eb");
        assert_eq!(device("a-rather-long-workload", "eth0"), "a-rather.b2fcb0");
    }

    #[test]
    fn ipv6_follows_rfc_4291_appendix_a() {
        // RFC 4291 appendix A writes the transformation; RFC 2464 section 4 gives this example.
        let subnet: Ipv6Net = "fd00:1::/64".parse().unwrap();
        let mac: MacAddr = "34:56:78:9a:bc:de".parse().unwrap();
        assert_eq!(ipv6(subnet, mac), Some("fd00:1::3656:78ff:fe9a:bcde".parse().unwrap()));
        assert_eq!(ipv6("fd00:1::/65".parse().unwrap(), mac), None);
    }

    #[test]
    fn a_device_name_fits_ifnamsiz() {
        assert_eq!(device("web-1", "eth0"), "web-1.eth0");
        assert!(device(&"w".repeat(63), "eth0123456789ab").len() <= 15);
    }
}
