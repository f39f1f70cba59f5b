//! What is refused cannot be smuggled past: fragments, header chains, options, flags, windows, errors and addresses that no
//! honest stack would send are counted under their own reasons, and arrive nowhere.
//!
//! The frames are scapy's: sent directly from a container, by tcpreplay from a guest.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::capture::Capture;
use e2e::lab::{Lab, LabSpec, v4_of, v6_of};
use e2e::process::eventually;
use e2e::scapy::{send_from_guest, send_from_netns, with_values};
use e2e::shell::Shell;
use e2e::traffic::wait_listens;
use e2e::trials::{Check, Fixture, check, run};

/// UDP to 4242 and TCP to 8080 pass, all else is dropped at its destination.
const POLICY: &str = "
---
kind: FirewallPolicy
name: narrow
spec:
  tier: application
  priority: 100
  appliesTo: [any]
  rules:
    - { name: open, action: allow, services: [udp/4242, tcp/8080, ping] }
    - { name: rest, direction: in, action: drop }
";

/// What is sent: a sentence, the reason under which it is counted and how often, and a list of frames in scapy's words.
/// Capital words stand for addresses: MAC, V4, V6 of the sender, PEER, PEER4, PEER6 of b, OTHER of d.
const CASES: [(&str, &str, u64, &str); 18] = [
    (
        "fragments_that_overlap",
        "fragment-overlap",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4,id=7,flags=1,proto=17)/Raw(bytes(UDP(sport=1,dport=4242,len=56))+b'x'*24),\
         Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4,id=7,frag=2,proto=17)/Raw(b'y'*32)]",
    ),
    (
        "fragments_that_overlap_in_ipv6",
        "fragment-overlap",
        1,
        "[Ether(src=MAC,dst=PEER)/IPv6(src=V6,dst=PEER6)/IPv6ExtHdrFragment(id=7,m=1,nh=17)/Raw(bytes(UDP(sport=1,dport=4242,len=56))+b'x'*24),\
         Ether(src=MAC,dst=PEER)/IPv6(src=V6,dst=PEER6)/IPv6ExtHdrFragment(id=7,offset=2,nh=17)/Raw(b'y'*32)]",
    ),
    (
        "a_first_fragment_without_its_ports",
        "malformed-transport",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4,id=8,flags=1,proto=6)/Raw(bytes(TCP(dport=8080))[:8])]",
    ),
    (
        "a_later_fragment_within_the_tcp_header",
        "malformed-transport",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4,id=9,frag=1,proto=6)/Raw(b'y'*16)]",
    ),
    (
        "later_fragments_of_what_was_refused",
        "policy-drop",
        2,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4,id=10,flags=1,proto=17)/Raw(bytes(UDP(sport=1,dport=53,len=40))+b'x'*16),\
         Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4,id=10,frag=3,proto=17)/Raw(b'y'*16)]",
    ),
    (
        "an_endless_chain_of_ipv6_headers",
        "ipv6-extension-header",
        1,
        "[Ether(src=MAC,dst=PEER)/IPv6(src=V6,dst=PEER6)/IPv6ExtHdrDestOpt()/IPv6ExtHdrDestOpt()/IPv6ExtHdrDestOpt()/IPv6ExtHdrDestOpt()\
         /IPv6ExtHdrDestOpt()/IPv6ExtHdrDestOpt()/IPv6ExtHdrDestOpt()/IPv6ExtHdrDestOpt()/IPv6ExtHdrDestOpt()/UDP(dport=4242)]",
    ),
    (
        "a_header_chain_that_goes_on_in_a_fragment",
        "ipv6-extension-header",
        1,
        "[Ether(src=MAC,dst=PEER)/IPv6(src=V6,dst=PEER6)/IPv6ExtHdrFragment(id=9,m=1,nh=60)/IPv6ExtHdrDestOpt()/UDP(dport=4242)]",
    ),
    (
        "a_source_route",
        "source-route",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4,options=[IPOption_LSRR(routers=['10.0.1.14'])])/UDP(dport=4242)]",
    ),
    (
        "a_refused_port_behind_ip_options",
        "policy-drop",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4,options=[IPOption(b'\\x94\\x04\\x00\\x00')])/UDP(dport=53)]",
    ),
    (
        "a_vlan_tag_around_a_refused_packet",
        "vlan-tagged",
        1,
        "[Ether(src=MAC,dst=PEER)/Dot1Q(vlan=1)/IP(src=V4,dst=PEER4)/UDP(dport=53)]",
    ),
    (
        "syn_with_fin",
        "tcp-bad-flags",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4)/TCP(dport=8080,flags='SF')]",
    ),
    (
        "no_flag_at_all",
        "tcp-bad-flags",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4)/TCP(dport=8080,flags='')]",
    ),
    (
        "a_christmas_tree",
        "tcp-bad-flags",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4)/TCP(dport=8080,flags='FPU')]",
    ),
    (
        "an_answer_to_a_syn_that_nobody_sent",
        "tcp-invalid-state",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4)/TCP(sport=8080,dport=8080,flags='SA')]",
    ),
    (
        "an_icmp_error_about_no_flow",
        "icmp-unrelated",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4)/ICMP(type=3,code=1)/IP(src=PEER4,dst=V4)/UDP(sport=4242,dport=4243)]",
    ),
    (
        "an_icmp_error_about_the_flow_of_others",
        "icmp-unrelated",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4)/ICMP(type=3,code=1)/IP(src=PEER4,dst='10.0.1.14')/UDP(sport=4242,dport=4242)]",
    ),
    (
        "an_echo_reply_that_nobody_asked_for",
        "icmp-unrelated",
        1,
        "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4)/ICMP(type=0,id=99)]",
    ),
    (
        "a_packet_for_one_at_the_mac_of_another",
        "destination-mismatch",
        1,
        "[Ether(src=MAC,dst=OTHER)/IP(src=V4,dst=PEER4)/UDP(dport=4242)]",
    ),
];

/// Allowed, and sent after each case: once it is there, what was sent before would have been.
const SENTINEL: &str = "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4)/UDP(sport=4242,dport=4242)/'seen']";
/// All that a case may send, unless its first fragment may pass.
const FILTER: &str = "ip or ip6 and not icmp6";

struct Net(Lab);

impl Fixture for Net {
    fn new() -> Result<Self> {
        let spec = LabSpec {
            containers: vec!["c", "d"],
            policy: POLICY,
            arguments: vec!["--max-flows-per-port", "2000"],
            ..LabSpec::default()
        };
        Ok(Self(Lab::start(&spec)?))
    }

    fn report(&self) -> String {
        self.0.report()
    }
}

fn main() -> ExitCode {
    let mut checks: Vec<Check<Net>> = Vec::new();
    for (sender, kind) in [("a", "guest"), ("c", "container")] {
        for (sentence, reason, count, frames) in CASES {
            let name = format!("a_{kind}_gets_nothing_past_with_{sentence}");
            checks.push(check(name, 60, move |net: &mut Net| refused(&net.0, sender, reason, count, frames)));
        }
    }
    checks.push(check("a_reset_from_outside_the_window_ends_no_connection", 90, |net: &mut Net| {
        blind_reset(&net.0)
    }));
    checks.push(check("a_syn_flood_stays_its_senders_own_trouble", 120, |net: &mut Net| syn_flood(&net.0)));
    run(checks)
}

/// Sends the frames from `sender` to the guest b; container d looks on.
fn refused(lab: &Lab, sender: &str, reason: &str, count: u64, frames: &str) -> Result<()> {
    let witnesses = [("b", "eth0".to_owned()), ("d", lab.container("d").device())];
    let captures = witnesses
        .iter()
        .map(|(name, device)| Capture::start(lab.end(name), device, FILTER))
        .collect::<Result<Vec<_>>>()?;
    // What the destination's rules refuse is counted at the sender, too.
    let before = lab.palisade.port(sender, "eth0")?.drops(reason);
    let sent = expression(lab, sender, &format!("{frames}+{SENTINEL}"))?;
    match sender {
        "a" => send_from_guest(lab.guest("a"), "eth0", &sent)?,
        _ => send_from_netns(&lab.container(sender).netns, &lab.container(sender).device(), &sent)?,
    }
    let grown = lab.palisade.wait_drops(sender, reason, before, count)?;
    ensure!(grown == count, "{count} frames were counted as {grown} under {reason}");
    // Of overlapping fragments the first was honest when it came.
    let honest = usize::from(reason == "fragment-overlap");
    for ((name, _), capture) in witnesses.iter().zip(captures) {
        if *name == "b" {
            capture.wait_for(lab.end(name), "4242 > ", Duration::from_secs(5))?;
        }
        let arrived = capture.stop(lab.end(name))?;
        let most = if *name == "b" { 1 + honest } else { 0 };
        ensure!(arrived.len() <= most, "{name} received more than it may: {arrived:#?}");
    }
    Ok(())
}

/// A connection from c to b goes on while c itself sends resets whose sequence numbers are far outside the window.
fn blind_reset(lab: &Lab) -> Result<()> {
    let (b, c) = (lab.guest("b"), lab.container("c"));
    let files = b.files();
    // A listener whose own input does not end: it would close its side at once.
    b.run(&format!("sleep 60 | nc -l -p 8080 > {files}/blind.txt 2>/dev/null &"))?;
    wait_listens(b, 8080)?;
    let into = c.netns.files();
    c.netns.run(&format!(
        "rm -f {into}/blind; mkfifo {into}/blind; nc {} 8080 < {into}/blind > /dev/null 2>&1 & \
         (exec 3> {into}/blind; echo one >&3; sleep 8; echo two >&3; sleep 1) > /dev/null 2>&1 &",
        v4_of("b")
    ))?;
    eventually("the connection carries data", Duration::from_secs(10), || {
        b.succeeds(&format!("grep -q one {files}/blind.txt"))
    })?;
    // Lines of /proc/net/tcp: number, local address:port, remote address:port (0x1f90 is 8080), state.
    let table = c.netns.run("cat /proc/net/tcp /proc/net/tcp6")?;
    let line = table.lines().find(|line| line.contains(":1F90 0")).with_context(|| table.clone())?;
    let local = line.split_whitespace().nth(1).and_then(|end| end.rsplit(':').next()).context("no port")?;
    let local = u16::from_str_radix(local, 16)?;
    let before = lab.palisade.port("c", "eth0")?.drops("tcp-out-of-window");
    let resets = "[Ether(src=MAC,dst=PEER)/IP(src=V4,dst=PEER4)/TCP(sport=LOCAL,dport=8080,flags='R',seq=s) \
                  for s in range(0, 2**32, 2**28)]"
        .replace("LOCAL", &local.to_string());
    send_from_netns(&c.netns, &c.device(), &expression(lab, "c", &resets)?)?;
    // Of 16 numbers spread over all there are, at most one can lie in a window of 64 KiB.
    let grown = lab.palisade.wait_drops("c", "tcp-out-of-window", before, 15)?;
    ensure!(grown >= 15, "{grown} of 16 resets were out of the window");
    eventually("the connection goes on", Duration::from_secs(20), || {
        b.succeeds(&format!("grep -q two {files}/blind.txt"))
    })
}

/// c floods b with SYNs from ever new ports until its state is used up; d's connections come about meanwhile.
fn syn_flood(lab: &Lab) -> Result<()> {
    let (b, c, d) = (lab.guest("b"), lab.container("c"), lab.container("d"));
    b.run("nc -ll -p 8080 -e true > /dev/null 2>&1 &")?;
    eventually("d connects", Duration::from_secs(10), || {
        d.netns.succeeds(&format!("nc -w 2 {} 8080 < /dev/null", v4_of("b")))
    })?;
    let before = lab.palisade.port("c", "eth0")?.drops("state-limit");
    // Six times what a port may have. None is answered: d has nobody at that port and refuses nothing aloud.
    let flood = "[Ether(src=MAC,dst=OTHER)/IP(src=V4,dst='10.0.1.14')/TCP(sport=p,dport=8080,flags='S') \
                 for p in range(1024, 13024)]";
    let program = expression(lab, "c", flood)?;
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| send_from_netns(&c.netns, &c.device(), &program));
        let mut connected = 0;
        for _ in 0..20 {
            let answered = d
                .netns
                .try_run(&format!("nc -w 2 {} 8080 < /dev/null", v4_of("b")), Duration::from_secs(10))?;
            connected += u32::from(answered.success());
        }
        match flooding.join() {
            Ok(outcome) => outcome?,
            Err(_) => anyhow::bail!("the flood's thread panicked"),
        }
        ensure!(connected >= 19, "{connected} of 20 connections of a neighbour came about");
        Ok(())
    })?;
    lab.palisade.wait_drops("c", "state-limit", before, 8_000).map(drop)
}

/// The expression with the sender's and its victim's addresses in the place of the capital words.
fn expression(lab: &Lab, sender: &str, frames: &str) -> Result<String> {
    let words = [
        ("PEER4", v4_of("b").to_string()),
        ("PEER6", v6_of("b").to_string()),
        ("PEER", lab.palisade.port("b", "eth0")?.mac()?),
        ("OTHER", lab.palisade.port("d", "eth0")?.mac()?),
        ("MAC", lab.palisade.port(sender, "eth0")?.mac()?),
        ("V4", v4_of(sender).to_string()),
        ("V6", v6_of(sender).to_string()),
    ];
    let text = with_values(frames, &words);
    ensure!(!text.contains("=PEER") && !text.contains("=V4"), "a word is left in {text}");
    Ok(text)
}
