//! A workload speaks for itself only: what it sends in another's name is counted under its own reason, and arrives nowhere.
//!
//! The frames are scapy's: sent directly from a container, by tcpreplay from a guest.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::capture::Capture;
use e2e::lab::{Lab, LabSpec, v4_of, v6_of};
use e2e::scapy::{send_from_guest, send_from_netns, with_values};
use e2e::trials::{Check, Fixture, check, run};

/// What a workload may not do: a sentence, the reason it is counted under, and a frame in scapy's words.
const CASES: [(&str, &str, &str); 12] = [
    (
        "send_from_another_mac",
        "spoofed-mac",
        "Ether(src='02:00:00:00:00:99',dst=PEER)/IP(src=V4,dst=PEER4)/UDP(dport=9)",
    ),
    (
        "send_from_another_ipv4",
        "spoofed-ipv4",
        "Ether(src=MAC,dst=PEER)/IP(src='10.0.1.99',dst=PEER4)/UDP(dport=9)",
    ),
    (
        "send_from_its_peers_ipv4",
        "spoofed-ipv4",
        "Ether(src=MAC,dst=PEER)/IP(src='10.0.1.14',dst=PEER4)/UDP(dport=9)",
    ),
    (
        "send_from_another_ipv6",
        "spoofed-ipv6",
        "Ether(src=MAC,dst=PEER)/IPv6(src='fd00:1::99',dst=PEER6)/UDP(dport=9)",
    ),
    (
        "send_from_another_link_local",
        "spoofed-ipv6",
        "Ether(src=MAC,dst=PEER)/IPv6(src='fe80::99',dst=PEER6)/UDP(dport=9)",
    ),
    (
        "answer_arp_for_the_gateway",
        "spoofed-arp",
        "Ether(src=MAC,dst='ff:ff:ff:ff:ff:ff')/ARP(op=2,hwsrc=MAC,psrc='10.0.1.1',hwdst=PEER,pdst=PEER4)",
    ),
    (
        "announce_another_mac_by_arp",
        "spoofed-arp",
        "Ether(src=MAC,dst='ff:ff:ff:ff:ff:ff')/ARP(op=1,hwsrc='02:00:00:00:00:99',psrc=V4,pdst=V4)",
    ),
    (
        "advertise_another_neighbour",
        "spoofed-nd",
        "Ether(src=MAC,dst='33:33:00:00:00:01')/IPv6(src=V6,dst='ff02::1')/ICMPv6ND_NA(tgt='fd00:1::1',R=0,S=0,O=1)\
         /ICMPv6NDOptDstLLAddr(lladdr=MAC)",
    ),
    (
        "advertise_a_router",
        "rogue-router",
        "Ether(src=MAC,dst='33:33:00:00:00:01')/IPv6(src=LINK_LOCAL,dst='ff02::1')/ICMPv6ND_RA()\
         /ICMPv6NDOptPrefixInfo(prefix='fd00:2::',prefixlen=64)",
    ),
    (
        "offer_dhcp_leases",
        "rogue-dhcp-server",
        "Ether(src=MAC,dst='ff:ff:ff:ff:ff:ff')/IP(src=V4,dst='255.255.255.255')/UDP(sport=67,dport=68)\
         /BOOTP(op=2,yiaddr='10.0.1.50')/DHCP(options=[('message-type','offer'),('server_id',V4),'end'])",
    ),
    (
        "offer_dhcpv6_leases",
        "rogue-dhcp-server",
        "Ether(src=MAC,dst=PEER)/IPv6(src=LINK_LOCAL,dst=PEER6)/UDP(sport=547,dport=546)/DHCP6_Advertise()",
    ),
    (
        "redirect_others",
        "rogue-redirect",
        "Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4)/ICMP(type=5,code=1,gw=V4)\
         /IP(src=PEER4,dst='10.0.1.14')/UDP(dport=9)",
    ),
];

/// A frame that is allowed and sent after each forbidden one: once it is there, the other would have been.
const SENTINEL: &str =
    "Ether(src=MAC,dst='ff:ff:ff:ff:ff:ff')/IP(src=V4,dst='10.0.1.255')/UDP(sport=4242,dport=4242)/'seen'";
/// Everything that could be one of [`CASES`], and the sentinel.
const FILTER: &str = "udp or arp or icmp or (icmp6 and (ip6[40] = 134 or ip6[40] = 136))";
const REPEATS: u64 = 5;

struct Net(Lab);

impl Fixture for Net {
    fn new() -> Result<Self> {
        let lab = Lab::start(&LabSpec { containers: vec!["c", "d"], ..LabSpec::default() })?;
        // Each check wants to know of every frame.
        lab.wait_announced()?;
        Ok(Self(lab))
    }

    fn report(&self) -> String {
        self.0.report()
    }
}

fn main() -> ExitCode {
    let mut checks: Vec<Check<Net>> = Vec::new();
    for (sender, kind) in [("a", "guest"), ("c", "container")] {
        for (sentence, reason, frame) in CASES {
            let name = format!("a_{kind}_cannot_{sentence}");
            checks.push(check(name, 60, move |net: &mut Net| cannot(&net.0, sender, reason, frame)));
        }
    }
    run(checks)
}

/// Sends `frame` from `sender` to the guest b; container d looks on.
fn cannot(lab: &Lab, sender: &str, reason: &str, frame: &str) -> Result<()> {
    let witnesses = [("b", "eth0".to_owned()), ("d", lab.container("d").device())];
    let captures = witnesses
        .iter()
        .map(|(name, device)| Capture::start(lab.end(name), device, FILTER))
        .collect::<Result<Vec<_>>>()?;
    let before = lab.palisade.port(sender, "eth0")?.drops(reason);

    let frames = expression(lab, sender, &format!("[{frame}]*{REPEATS}+[{SENTINEL}]"))?;
    match sender {
        "a" => send_from_guest(lab.guest("a"), "eth0", &frames)?,
        _ => send_from_netns(&lab.container(sender).netns, &lab.container(sender).device(), &frames)?,
    }

    let grown = lab.palisade.wait_drops(sender, reason, before, REPEATS)?;
    ensure!(grown == REPEATS, "{REPEATS} frames were counted as {grown} under {reason}");
    for ((name, _), capture) in witnesses.iter().zip(captures) {
        capture.wait_for(lab.end(name), "4242", Duration::from_secs(5))?;
        let arrived = capture.stop(lab.end(name))?;
        ensure!(arrived.len() == 1, "{name} received more than the sentinel: {arrived:#?}");
    }
    Ok(())
}

/// The expression with the sender's and its victim's addresses in the place of the capital words.
fn expression(lab: &Lab, sender: &str, frames: &str) -> Result<String> {
    let mac = lab.palisade.port(sender, "eth0")?.mac()?;
    let peer = lab.palisade.port("b", "eth0")?.mac()?;
    let words = [
        ("LINK_LOCAL", link_local(&mac)?),
        ("PEER4", v4_of("b").to_string()),
        ("PEER6", v6_of("b").to_string()),
        ("PEER", peer),
        ("MAC", mac),
        ("V4", v4_of(sender).to_string()),
        ("V6", v6_of(sender).to_string()),
    ];
    Ok(with_values(frames, &words))
}

/// RFC 4291 appendix A: fe80::/64 with the EUI-64 of the MAC.
fn link_local(mac: &str) -> Result<String> {
    let bytes =
        mac.split(':').map(|byte| u8::from_str_radix(byte, 16).context("MAC")).collect::<Result<Vec<_>>>()?;
    ensure!(bytes.len() == 6, "MAC {mac}");
    let [a, b, c, d, e, f] = [bytes[0] ^ 2, bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]];
    Ok(format!("fe80::{a:x}{b:02x}:{c:x}ff:fe{d:02x}:{e:x}{f:02x}"))
}
