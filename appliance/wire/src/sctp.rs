//! SCTP (RFC 9260): its ports.
//!
//! ```text
//!  0     2     4                  8          12
//! +-----+-----+------------------+----------+--------
//! | src | dst | verification tag | checksum | chunks
//! +-----+-----+------------------+----------+--------
//! ```

/// Bytes of the common header.
pub const HEADER_LEN: usize = 12;
/// Where the checksum (CRC32c) lies.
pub const CHECKSUM_OFFSET: usize = 8;

/// Source and destination port, which TCP, UDP, UDP-Lite, DCCP and SCTP all have in their first four bytes. `None` when
/// there are fewer.
#[inline]
pub fn ports(header: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *header.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_first_four_bytes() {
        // `bytes(SCTP(sport=0x1234, dport=0x5678, tag=1))` of scapy begins so.
        let header = [0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1];
        assert_eq!(ports(&header), Some((0x1234, 0x5678)));
        assert_eq!(ports(&header[..3]), None);
    }
}
