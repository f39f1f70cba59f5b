//! What we offer: virtio features of the device and features of the vhost-user protocol, each with its reason.

/// One bit of a feature set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Bit number.
    pub bit: u8,
    /// Name without its prefix, as the specification spells it.
    pub name: &'static str,
    /// Whether a port offers it (some only in some configurations: see `why`).
    pub offered: bool,
    /// Why it is offered, or why not.
    pub why: &'static str,
}

const fn yes(bit: u8, name: &'static str, why: &'static str) -> Feature {
    Feature { bit, name, offered: true, why }
}

const fn no(bit: u8, name: &'static str, why: &'static str) -> Feature {
    Feature { bit, name, offered: false, why }
}

pub(crate) const CSUM: u64 = 1 << 0;
pub(crate) const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const GUEST_ECN: u64 = 1 << 9;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const HOST_ECN: u64 = 1 << 13;
const CTRL_VQ: u64 = 1 << 17;
const GUEST_ANNOUNCE: u64 = 1 << 21;
pub(crate) const MQ: u64 = 1 << 22;
pub(crate) const LOG_ALL: u64 = 1 << 26;
pub(crate) const PROTOCOL_FEATURES: u64 = 1 << 30;
const GUEST_USO4: u64 = 1 << 54;
const GUEST_USO6: u64 = 1 << 55;
const HOST_USO: u64 = 1 << 56;

/// Virtio features (virtio 1.3: 5.1.3, 6; vhost-user: "Front-end message types"). `HOST_*` is what the guest may send,
/// `GUEST_*` what it may be sent.
pub const VIRTIO: &[Feature] = &[
    yes(0, "CSUM", "the checksum is carried through to a receiver that takes it, or finished in software"),
    yes(1, "GUEST_CSUM", "frames with an unfinished checksum are passed on as they are"),
    no(2, "CTRL_GUEST_OFFLOADS", "the VMM handles the control queue and has no message that would tell us"),
    yes(3, "MTU", "tells the guest the MTU of its network"),
    yes(5, "MAC", "the address that anti-spoofing expects"),
    no(6, "GSO", "legacy name for all of HOST_TSO4, HOST_TSO6 and HOST_ECN; left out of virtio 1.0"),
    yes(7, "GUEST_TSO4", "large segments are passed on uncut"),
    yes(8, "GUEST_TSO6", "large segments are passed on uncut"),
    yes(9, "GUEST_ECN", "large segments with CWR are passed on uncut"),
    no(10, "GUEST_UFO", "Linux left UFO in 4.14; USO takes its place"),
    yes(11, "HOST_TSO4", "the guest sends up to 64 KiB at once"),
    yes(12, "HOST_TSO6", "the guest sends up to 64 KiB at once"),
    yes(13, "HOST_ECN", "large segments may carry CWR"),
    no(14, "HOST_UFO", "Linux left UFO in 4.14; USO takes its place"),
    yes(15, "MRG_RXBUF", "a large frame spans small buffers"),
    yes(16, "STATUS", "the VMM shows the link as down while we are away"),
    yes(17, "CTRL_VQ", "needed by MQ and GUEST_ANNOUNCE; the VMM handles the queue itself"),
    no(18, "CTRL_RX", "a port delivers by declared address: receive filters would have no effect"),
    no(19, "CTRL_VLAN", "a port delivers by declared address: VLAN filters would have no effect"),
    no(20, "CTRL_RX_EXTRA", "a port delivers by declared address: receive filters would have no effect"),
    yes(21, "GUEST_ANNOUNCE", "after a migration the guest announces itself; QEMU then needs no RARP"),
    yes(22, "MQ", "only with more than one queue pair"),
    no(
        23,
        "CTRL_MAC_ADDR",
        "anti-spoofing would drop everything sent from another address: the guest should be told no",
    ),
    no(24, "NOTIFY_ON_EMPTY", "legacy; EVENT_IDX is better"),
    yes(26, "LOG_ALL", "dirty pages are logged for live migration"),
    yes(27, "ANY_LAYOUT", "no assumption is made about descriptor boundaries"),
    yes(28, "INDIRECT_DESC", "a chain in one ring slot"),
    yes(29, "EVENT_IDX", "fewer kicks and interrupts"),
    yes(30, "PROTOCOL_FEATURES", "opens vhost-user protocol features"),
    yes(32, "VERSION_1", "virtio 1.0 and later; a legacy driver may leave it"),
    no(33, "ACCESS_PLATFORM", "needs IOTLB messages; guest addresses are physical here"),
    no(34, "RING_PACKED", "the fast path reads split rings"),
    yes(35, "IN_ORDER", "heads are given back in the order they were made available"),
    no(36, "ORDER_PLATFORM", "memory is coherent between processes of one machine"),
    no(40, "RING_RESET", "no front end we test with uses it yet"),
    yes(54, "GUEST_USO4", "large UDP sends are passed on uncut"),
    yes(55, "GUEST_USO6", "large UDP sends are passed on uncut"),
    yes(56, "HOST_USO", "the guest sends many datagrams at once"),
    no(57, "HASH_REPORT", "frames are not hashed for the receiver"),
    no(59, "GUEST_HDRLEN", "header lengths are proven here, never believed"),
    no(60, "RSS", "a frame arrives on the pair of the worker that carried it"),
    no(61, "RSC_EXT", "no receive coalescing is reported"),
    no(62, "STANDBY", "bonding is left to the guest"),
    no(63, "SPEED_DUPLEX", "the link has no speed of its own"),
];

/// Features of the vhost-user protocol (QEMU docs/interop/vhost-user, "Protocol features").
pub const PROTOCOL: &[Feature] = &[
    yes(0, "MQ", "GET_QUEUE_NUM answers with rings, twice the pairs (see below)"),
    yes(1, "LOG_SHMFD", "the dirty log of a live migration is shared memory"),
    yes(2, "RARP", "SEND_RARP becomes an event of the port: the switch learns where the guest is now"),
    yes(3, "REPLY_ACK", "the VMM learns whether a request worked, and when a mapping is no longer used"),
    yes(4, "NET_MTU", "the VMM's host_mtu is checked against the network's"),
    no(5, "BACKEND_REQ", "nothing to ask of the VMM"),
    no(6, "CROSS_ENDIAN", "legacy guests of the other endianness"),
    no(7, "CRYPTO_SESSION", "not a crypto device"),
    no(8, "PAGEFAULT", "postcopy would let a guest's page fault stall a worker"),
    yes(
        9,
        "CONFIG",
        "MAC, status, queue pairs and MTU can be read from us; QEMU keeps its own copy and warns of it at start",
    ),
    no(10, "BACKEND_SEND_FD", "belongs to BACKEND_REQ"),
    no(11, "HOST_NOTIFIER", "no hardware doorbells"),
    no(
        12,
        "INFLIGHT_SHMFD",
        "heads retire in order after their frame is dealt with, so the used index says it all",
    ),
    yes(13, "RESET_DEVICE", "all rings stop and forget their state"),
    no(14, "INBAND_NOTIFICATIONS", "eventfds are faster"),
    yes(15, "CONFIGURE_MEM_SLOTS", "memory comes and goes by region, up to 509"),
    no(16, "STATUS", "device status is the VMM's business here; a fault shows on the port"),
    no(17, "XEN_MMAP", "not a Xen backend"),
    no(18, "SHARED_OBJECT", "no dma-bufs"),
    no(19, "DEVICE_STATE", "the device has no state but its rings"),
    no(20, "GET_VRING_BASE_INFLIGHT", "belongs to INFLIGHT_SHMFD"),
    no(21, "GPA_ADDRESSES", "the crate underneath takes the VMM's addresses"),
    no(22, "SHMEM", "no shared memory regions"),
];

/// Bits of `set` that are offered.
const fn offered(set: &[Feature]) -> u64 {
    let mut bits = 0;
    let mut i = 0;
    while i < set.len() {
        if set[i].offered {
            bits |= 1 << set[i].bit;
        }
        i += 1;
    }
    bits
}

pub(crate) const PROTOCOL_OFFERED: u64 = offered(PROTOCOL);

/// Bits a VMM's own machinery rests on; switching them off per port would take away more than a feature.
const ALWAYS: u64 = PROTOCOL_FEATURES | LOG_ALL;

/// What a feature needs of the others to be offered at all (virtio 1.3, 5.1.3.1): any bit of the second.
const NEEDS: &[(u64, u64)] = &[
    (HOST_TSO4 | HOST_TSO6 | HOST_USO, CSUM),
    (HOST_ECN, HOST_TSO4 | HOST_TSO6),
    (GUEST_TSO4 | GUEST_TSO6 | GUEST_USO4 | GUEST_USO6, GUEST_CSUM),
    (GUEST_ECN, GUEST_TSO4 | GUEST_TSO6),
    (GUEST_ANNOUNCE | MQ, CTRL_VQ),
];

/// The virtio features that a port with `pairs` queue pairs offers when `off` are switched off, and with them whatever
/// needs one of those.
pub(crate) fn virtio_offered(pairs: u16, off: u64) -> u64 {
    let mut bits = offered(VIRTIO) & !(off & !ALWAYS);
    if pairs < 2 {
        bits &= !MQ;
    }
    for (dependent, needed) in NEEDS {
        if bits & needed == 0 {
            bits &= !dependent;
        }
    }
    bits
}

/// Names of the bits set in `bits`, lowest first; a bit the table does not know is `bit-N`.
pub fn names(set: &[Feature], bits: u64) -> Vec<String> {
    (0..64u8)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(|bit| match set.iter().find(|feature| feature.bit == bit) {
            Some(feature) => feature.name.to_owned(),
            None => format!("bit-{bit}"),
        })
        .collect()
}

/// The bits of a comma-separated list of names; the error is the first name the table does not know.
pub fn parse(set: &[Feature], list: &str) -> Result<u64, String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).try_fold(0, |bits, name| {
        let known = set.iter().find(|feature| feature.name.eq_ignore_ascii_case(name));
        known.map(|feature| bits | 1 << feature.bit).ok_or_else(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::{virtio_config, virtio_net, virtio_ring};

    #[test]
    fn bit_numbers_are_those_of_the_kernel_headers() {
        let kernel = [
            ("CSUM", virtio_net::VIRTIO_NET_F_CSUM),
            ("GUEST_CSUM", virtio_net::VIRTIO_NET_F_GUEST_CSUM),
            ("MTU", virtio_net::VIRTIO_NET_F_MTU),
            ("MAC", virtio_net::VIRTIO_NET_F_MAC),
            ("GUEST_TSO4", virtio_net::VIRTIO_NET_F_GUEST_TSO4),
            ("GUEST_TSO6", virtio_net::VIRTIO_NET_F_GUEST_TSO6),
            ("GUEST_ECN", virtio_net::VIRTIO_NET_F_GUEST_ECN),
            ("HOST_TSO4", virtio_net::VIRTIO_NET_F_HOST_TSO4),
            ("HOST_TSO6", virtio_net::VIRTIO_NET_F_HOST_TSO6),
            ("HOST_ECN", virtio_net::VIRTIO_NET_F_HOST_ECN),
            ("MRG_RXBUF", virtio_net::VIRTIO_NET_F_MRG_RXBUF),
            ("STATUS", virtio_net::VIRTIO_NET_F_STATUS),
            ("CTRL_VQ", virtio_net::VIRTIO_NET_F_CTRL_VQ),
            ("GUEST_ANNOUNCE", virtio_net::VIRTIO_NET_F_GUEST_ANNOUNCE),
            ("MQ", virtio_net::VIRTIO_NET_F_MQ),
            ("ANY_LAYOUT", virtio_config::VIRTIO_F_ANY_LAYOUT),
            ("VERSION_1", virtio_config::VIRTIO_F_VERSION_1),
            ("IN_ORDER", virtio_config::VIRTIO_F_IN_ORDER),
            ("INDIRECT_DESC", virtio_ring::VIRTIO_RING_F_INDIRECT_DESC),
            ("EVENT_IDX", virtio_ring::VIRTIO_RING_F_EVENT_IDX),
            ("GUEST_USO4", virtio_net::VIRTIO_NET_F_GUEST_USO4),
            ("GUEST_USO6", virtio_net::VIRTIO_NET_F_GUEST_USO6),
            ("HOST_USO", virtio_net::VIRTIO_NET_F_HOST_USO),
        ];
        for (name, bit) in kernel {
            let feature = VIRTIO.iter().find(|feature| feature.name == name).unwrap();
            assert_eq!((u32::from(feature.bit), feature.offered), (bit, true), "{name}");
        }
    }

    #[test]
    fn protocol_bits_are_those_of_the_vhost_crate() {
        use vhost::vhost_user::message::VhostUserProtocolFeatures as P;
        let crate_bits = P::MQ
            | P::LOG_SHMFD
            | P::RARP
            | P::REPLY_ACK
            | P::MTU
            | P::CONFIG
            | P::RESET_DEVICE
            | P::CONFIGURE_MEM_SLOTS;
        assert_eq!(PROTOCOL_OFFERED, crate_bits.bits());
        assert_eq!(PROTOCOL.len() as u32, P::all().bits().count_ones());
    }

    #[test]
    fn switching_a_feature_off_takes_what_rests_on_it() {
        let all = virtio_offered(4, 0);
        assert_eq!(all & MQ, MQ);
        assert_eq!(virtio_offered(1, 0), all & !MQ);
        assert_eq!(virtio_offered(4, CSUM), all & !(CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_USO));
        let guest = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_USO4 | GUEST_USO6;
        assert_eq!(virtio_offered(4, GUEST_CSUM), all & !guest);
        assert_eq!(virtio_offered(4, HOST_TSO4), all & !HOST_TSO4);
        assert_eq!(virtio_offered(4, HOST_TSO4 | HOST_TSO6), all & !(HOST_TSO4 | HOST_TSO6 | HOST_ECN));
        assert_eq!(virtio_offered(4, CTRL_VQ), all & !(CTRL_VQ | MQ | GUEST_ANNOUNCE));
        assert_eq!(virtio_offered(4, u64::MAX), ALWAYS);
    }

    #[test]
    fn names_and_bits_translate_both_ways() {
        assert_eq!(names(VIRTIO, 1 | 1 << 15 | 1 << 48), ["CSUM", "MRG_RXBUF", "bit-48"]);
        assert_eq!(parse(VIRTIO, "csum, MRG_RXBUF"), Ok(1 | 1 << 15));
        assert_eq!(parse(VIRTIO, ""), Ok(0));
        assert_eq!(parse(VIRTIO, "csum,mrg"), Err("mrg".to_owned()));
    }

    #[test]
    fn the_document_lists_every_feature_as_the_code_has_it() {
        let page = include_str!("../../docs/vhost-user.md");
        let rows = |heading: &str| -> Vec<Vec<&str>> {
            let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
            let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
            rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
        };
        for (heading, set) in [("Virtio features", VIRTIO), ("Protocol features", PROTOCOL)] {
            let expected: Vec<Vec<String>> = set
                .iter()
                .map(|f| {
                    let offered = if f.offered { "yes" } else { "no" };
                    vec![f.bit.to_string(), f.name.to_owned(), offered.to_owned(), f.why.to_owned()]
                })
                .collect();
            assert_eq!(rows(heading), expected, "{heading}");
        }
    }
}
