//! TCP (RFC 9293): what segmentation and connection tracking need of it.
//!
//! ```text
//!  0     2     4     8     12       13      14       16         18      20
//! +-----+-----+-----+-----+--------+-------+--------+----------+-------+--------
//! | src | dst | seq | ack | offset | flags | window | checksum | urgent| options
//! +-----+-----+-----+-----+--------+-------+--------+----------+-------+--------
//! ```

/// Bytes of the header without options.
pub const HEADER_LEN: usize = 20;
/// Where the sequence number lies.
pub const SEQUENCE_OFFSET: usize = 4;
/// Where the acknowledgement number lies.
pub const ACKNOWLEDGEMENT_OFFSET: usize = 8;
/// Where the data offset lies: its upper four bits, in units of 4 bytes.
pub const DATA_OFFSET: usize = 12;
/// Where the flags lie.
pub const FLAGS_OFFSET: usize = 13;
/// Where the checksum lies.
pub const CHECKSUM_OFFSET: usize = 16;

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise: the first number of a sequence.
pub const SYN: u8 = 0x02;
/// The connection is no more.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgement number means something.
pub const ACK: u8 = 0x10;
/// The receiver saw a congestion mark (RFC 3168).
pub const ECE: u8 = 0x40;
/// Congestion window reduced (RFC 3168).
pub const CWR: u8 = 0x80;
