//! Frames between the bed's ports, and checksums by the book (RFC 1071), independent of the code under test.

/// Bytes of Ethernet, IPv4 and TCP headers without options.
pub(crate) const TCP_HEADERS: usize = 14 + 20 + 20;

/// A UDP datagram from port `from` to port `to` of the bed, with correct checksums.
pub(crate) fn udp(from: u8, to: u8, source_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = source_port.to_be_bytes().to_vec();
    segment.extend(9u16.to_be_bytes());
    segment.extend((8 + payload.len() as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    let sum = !checksum(&pseudo(from, to, 17, segment.len()), &segment);
    segment[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, 17, &segment)
}

/// A TCP segment whose checksum holds the pseudo header's sum only.
pub(crate) fn tcp_partial(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = 4711u16.to_be_bytes().to_vec();
    segment.extend(80u16.to_be_bytes());
    segment.extend(1000u32.to_be_bytes());
    segment.extend(1u32.to_be_bytes());
    segment.extend([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    let sum = checksum(&pseudo(from, to, 6, segment.len()), &[]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, 6, &segment)
}

/// The two fragments of a frame, cut `at` bytes (a multiple of 8) behind its IPv4 header.
pub(crate) fn fragments(frame: &[u8], id: u8, at: usize) -> [Vec<u8>; 2] {
    let (headers, data) = frame.split_at(34);
    let part = |data: &[u8], word: u16| {
        let mut part = headers.to_vec();
        part[16..18].copy_from_slice(&(20 + data.len() as u16).to_be_bytes());
        part[18..20].copy_from_slice(&[0, id]);
        part[20..22].copy_from_slice(&word.to_be_bytes());
        part[24..26].fill(0);
        let sum = !checksum(&part[14..34], &[]);
        part[24..26].copy_from_slice(&sum.to_be_bytes());
        part.extend(data);
        part
    };
    [part(&data[..at], 0x2000), part(&data[at..], at as u16 / 8)]
}

/// Whether the IPv4 header and the TCP or UDP checksum behind it are right.
pub(crate) fn checksums_hold(frame: &[u8]) -> bool {
    let packet = &frame[14..];
    let (header, segment) = packet.split_at(20);
    let (from, to) = (header[15], header[19]);
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    length == packet.len()
        && checksum(header, &[]) == 0xffff
        && checksum(&pseudo(from, to, header[9], segment.len()), segment) == 0xffff
}

fn ip(from: u8, to: u8, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x08, 0x00];
    let mut header = vec![0x45, 0];
    header.extend((20 + segment.len() as u16).to_be_bytes());
    header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 77, 0, from, 10, 77, 0, to]);
    let sum = !checksum(&header, &[]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend(segment);
    frame
}

fn pseudo(from: u8, to: u8, protocol: u8, len: usize) -> Vec<u8> {
    let [high, low] = (len as u16).to_be_bytes();
    vec![10, 77, 0, from, 10, 77, 0, to, 0, protocol, high, low]
}

/// The ones' complement sum of two byte strings, the first of even length.
fn checksum(one: &[u8], two: &[u8]) -> u16 {
    let words = one.chunks(2).chain(two.chunks(2));
    let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
