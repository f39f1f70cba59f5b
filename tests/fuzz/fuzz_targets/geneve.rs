//! GENEVE headers from anybody: what is read lies within the bytes, and is read again from what is written of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::geneve::{BUILT_LEN, Builder, HEADER_LEN, Header, split};

fuzz_target!(|data: &[u8]| {
    let (header, frame) = split(data);
    assert_eq!(header.len() + frame.len(), data.len());
    let Ok(read) = Header::parse(data) else { return };
    assert_eq!(Header::parse(header), Ok(read));
    assert_eq!(read.len, header.len());
    assert!(read.len >= HEADER_LEN && read.len <= data.len());
    let Header { vni, control, identity, tags, port, .. } = read;
    let mut buffer = [0; BUILT_LEN];
    let len = Builder { vni, control, identity, tags, port }.write(&mut buffer);
    assert_eq!(Header::parse(&buffer[..len]), Ok(Header { len, ..read }));
});
