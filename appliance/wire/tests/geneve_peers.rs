//! GENEVE headers against packets that Open vSwitch and Linux sent: `golden/geneve.tsv`, which `golden/geneve.py` takes from the
//! wire.

use wire::geneve::{Builder, GeneveError, HEADER_LEN, Header};

/// A packet: who sent it in which case, what it says, and the UDP payload.
struct Packet {
    case: &'static str,
    sender: &'static str,
    says: &'static str,
    payload: Vec<u8>,
}

fn packets() -> Vec<Packet> {
    let packet = |line: &'static str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [case, sender, says, digits] = columns[..] else { panic!("{line}") };
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.as_bytes().chunks(2).map(byte).collect();
        // Outer headers without options, and UDP.
        let outer = if bytes[0] >> 4 == 4 { 20 } else { 40 } + 8;
        Packet { case, sender, says, payload: bytes[outer..].to_vec() }
    };
    include_str!("golden/geneve.tsv").lines().map(packet).collect()
}

#[test]
fn what_open_vswitch_and_linux_send_is_read() {
    for Packet { case, sender, says, payload } in packets() {
        let plain =
            Header { len: HEADER_LEN, vni: 0x1234, control: false, identity: None, tags: None, port: None };
        let want = match case {
            "plain" | "over ipv6" => Ok(plain),
            "our options" => Ok(Header { len: 24, identity: Some(0x0001_0203), port: Some(42), ..plain }),
            "an identity alone" => Ok(Header { len: 16, identity: Some(0xfffe_fdfc), ..plain }),
            "unknown option" => Ok(Header { len: 20, ..plain }),
            "control packet" => Ok(Header { control: true, ..plain }),
            "unknown critical option" => {
                Err(GeneveError::CriticalOption { class: 0xff00, kind: 0xfe, len: 4 })
            }
            "version 1" => Err(GeneveError::Version(1)),
            other => panic!("no such case: {other}"),
        };
        assert_eq!(Header::parse(&payload), want, "{case} of {sender}: {says}");
        if want.is_ok_and(|header| !header.control) {
            let inner = &payload[want.unwrap().len..];
            assert_eq!(inner[..6], [2, 0, 0, 0, 0, 0x0b], "{case} of {sender}: the frame follows");
        }
    }
}

#[test]
fn what_we_write_is_what_open_vswitch_writes() {
    let plain = Builder { vni: 0x1234, ..Builder::default() };
    for (case, builder) in [
        ("plain", plain),
        ("our options", Builder { identity: Some(0x0001_0203), port: Some(42), ..plain }),
        ("an identity alone", Builder { identity: Some(0xfffe_fdfc), ..plain }),
    ] {
        let sent = packets().into_iter().find(|it| it.case == case && it.sender.starts_with("Open vSwitch"));
        let sent = sent.unwrap().payload;
        let mut buffer = [0; 64];
        let len = builder.write(&mut buffer);
        assert_eq!(buffer[..len], sent[..len], "{case}");
    }
}
