//! How large an IP packet of a network may be, so that it travels between hosts in one piece.
//!
//! What a frame gains on its way, at most:
//!
//! ```text
//! outer IPv6      40   RFC 8200 section 3; IPv4 needs 20
//! outer UDP        8   RFC 768
//! GENEVE           8   RFC 8926 section 3.4
//! our options     28   identity 8, destination port 8, tags 12 (RFC 8926 section 3.5)
//! inner Ethernet  14
//! ESP in UDP      45   UDP 8 (RFC 3948 section 2.1), SPI and sequence number 8, IV 8 (RFC 4106 section 3.1),
//!                      padding at most 3 and its trailer 2 (RFC 4303 section 2.4), ICV 16
//! ```
//!
//! What encryption takes is left free from the start: guests are told an MTU when they boot, and keep it.

use std::cell::RefCell;
use std::collections::HashMap;

use mgmt_types::Mtu;

use crate::compile;
use crate::state::{HostEntry, NetworkEntry, State};

/// What a frame gains between hosts, at most, with the inner Ethernet header, in bytes.
pub(crate) const OVERHEAD: u16 = 40 + 8 + 8 + 28 + 14 + 45;
/// `auto` is a multiple of this many bytes: some are left for an option to come.
const STEP: u16 = 10;

/// The host whose underlay carries least among those a network can send through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Narrowest<'a> {
    pub(crate) host: &'a str,
    /// Largest IP packet of its underlay, in bytes.
    pub(crate) underlay: u16,
}

impl Narrowest<'_> {
    /// The largest inner IP packet that arrives in one piece whatever is done to it.
    pub(crate) const fn carries(self) -> u16 {
        self.underlay.saturating_sub(OVERHEAD)
    }
}

/// The MTU of each network, worked out once for each routing domain.
pub(crate) struct Mtus<'a> {
    state: &'a State,
    known: RefCell<HashMap<Domain<'a>, Option<Narrowest<'a>>>>,
}

/// Networks that a packet can come from and go to.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Domain<'a> {
    Router(&'a str),
    Network(&'a str),
}

impl<'a> Mtus<'a> {
    pub(crate) fn of(state: &'a State) -> Self {
        Self { state, known: RefCell::default() }
    }

    /// The MTU in use, in bytes.
    pub(crate) fn in_use(&self, network: &'a NetworkEntry) -> u16 {
        match network.resource.spec.mtu {
            Mtu::Bytes(bytes) => bytes,
            Mtu::Auto => self.narrowest(network).map_or(Mtu::WITHOUT_UNDERLAY, |narrowest| {
                let carries = narrowest.carries();
                (carries - carries % STEP).clamp(Mtu::MIN, Mtu::MAX)
            }),
        }
    }

    /// Why packets of the network may not arrive, in words.
    pub(crate) fn warning(&self, network: &'a NetworkEntry) -> Option<String> {
        let narrowest = self.narrowest(network)?;
        let (mtu, carries) = (self.in_use(network), narrowest.carries());
        (mtu > carries).then(|| {
            format!(
                "packets of {mtu} bytes do not fit: the underlay of Host/{} carries {}, which leaves {carries} \
                 after at most {OVERHEAD} bytes of tunnel headers",
                narrowest.host, narrowest.underlay
            )
        })
    }

    fn narrowest(&self, network: &'a NetworkEntry) -> Option<Narrowest<'a>> {
        let name = network.resource.name.as_str();
        let domain = network.resource.spec.router.as_deref().map_or(Domain::Network(name), Domain::Router);
        *self.known.borrow_mut().entry(domain).or_insert_with(|| {
            compile::residents(self.state, self.state.domain(name))
                .into_iter()
                .filter_map(|host| self.state.hosts.get_key_value(host))
                .filter_map(|(host, entry)| Some(Narrowest { host, underlay: carried(entry)? }))
                .min_by_key(|narrowest| (narrowest.underlay, narrowest.host))
        })
    }
}

/// The largest IP packet of a host's underlay; none when it has no underlay that others could reach it on.
fn carried(host: &HostEntry) -> Option<u16> {
    let peer = compile::peer(host);
    peer.underlay.iter().any(|address| !address.is_loopback()).then_some(peer.mtu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{state_of, wishes};
    use crate::transaction;

    /// Hosts with underlays of 9000, 1500 and none; networks `a` and `b` on one router, `c` alone.
    const HOSTS: &str = r#"
kind: Host
name: wide
spec: { underlay: [192.0.2.1], underlayMtu: 9000 }
---
kind: Host
name: usual
spec: { underlay: ["2001:db8::2"] }
---
kind: Host
name: alone
---
kind: Network
name: a
spec: { subnets: [], router: r }
---
kind: Network
name: b
spec: { subnets: [], router: r }
---
kind: Network
name: c
spec: { subnets: [] }
"#;

    fn with(on: &[(&str, &str)]) -> State {
        let mut text = HOSTS.to_owned();
        for (number, (host, network)) in on.iter().enumerate() {
            text += &format!(
                "---\nkind: Workload\nname: w{number}\nspec: {{ host: {host}, kind: vm, ports: [{{ name: e, network: {network} }}] }}\n"
            );
        }
        state_of(&text)
    }

    fn mtus(state: &State) -> [u16; 3] {
        let mtus = Mtus::of(state);
        ["a", "b", "c"].map(|name| mtus.in_use(&state.networks[name]))
    }

    #[test]
    fn the_overhead_is_what_the_table_says() {
        assert_eq!(OVERHEAD, 143);
    }

    #[test]
    fn auto_is_what_the_narrowest_underlay_of_the_domain_leaves() {
        assert_eq!(mtus(&with(&[])), [1500, 1500, 1500]);
        assert_eq!(mtus(&with(&[("alone", "a")])), [1500, 1500, 1500], "it can reach nobody");
        assert_eq!(mtus(&with(&[("wide", "a")])), [8850, 8850, 1500], "one host decides already");
        assert_eq!(mtus(&with(&[("wide", "a"), ("usual", "c")])), [8850, 8850, 1350]);
        assert_eq!(mtus(&with(&[("wide", "a"), ("usual", "b"), ("alone", "a")])), [1350, 1350, 1500]);
    }

    #[test]
    fn a_second_host_of_the_same_underlay_changes_nothing() {
        let one = with(&[("usual", "a")]);
        let more = "kind: Host\nname: other\nspec: { underlay: [192.0.2.9] }\n---\nkind: Workload\nname: w9\nspec: { host: other, kind: vm, ports: [{ name: e, network: a }] }\n";
        let two = transaction::plan(&one, &wishes(more)).unwrap().state;
        assert_eq!(mtus(&one), mtus(&two));
    }

    #[test]
    fn an_underlay_too_narrow_for_ipv6_and_an_mtu_too_large_are_said() {
        let narrow = HOSTS.replace("underlayMtu: 9000", "underlayMtu: 1400");
        let on = "---\nkind: Workload\nname: w\nspec: { host: wide, kind: vm, ports: [{ name: e, network: c }] }\n";
        let state = state_of(&(narrow + on));
        let c = &state.networks["c"];
        assert_eq!(Mtus::of(&state).in_use(c), 1280, "RFC 8200 section 5");
        let said = Mtus::of(&state).warning(c).unwrap();
        assert!(
            said.contains("1280 bytes do not fit: the underlay of Host/wide carries 1400, which leaves 1257"),
            "{said}"
        );

        let explicit =
            HOSTS.replace("name: c\nspec: { subnets: [] }", "name: c\nspec: { subnets: [], mtu: 1400 }");
        let on = on.replace("host: wide", "host: usual");
        let state = state_of(&(explicit + &on));
        let c = &state.networks["c"];
        assert_eq!(Mtus::of(&state).in_use(c), 1400);
        assert!(Mtus::of(&state).warning(c).unwrap().contains("Host/usual carries 1500"));
        let state = with(&[("usual", "c")]);
        assert_eq!(Mtus::of(&state).warning(&state.networks["c"]), None);
    }

    #[test]
    fn loopback_is_no_underlay_that_limits() {
        let state = state_of(
            &(HOSTS.replace("192.0.2.1", "127.0.0.1").replace("9000", "65535")
                + "---\nkind: Workload\nname: w\nspec: { host: wide, kind: vm, ports: [{ name: e, network: c }] }\n"),
        );
        assert_eq!(mtus(&state)[2], 1500);
    }
}
