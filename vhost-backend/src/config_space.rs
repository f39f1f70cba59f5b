//! The device's configuration space, `struct virtio_net_config` (virtio 1.3, 5.1.4).
//!
//! ```text
//!  0        6        8              10    12
//!  | mac[6] | status | max_vq_pairs | mtu | zero ...
//! ```

use std::ops::Range;

/// `VIRTIO_NET_S_LINK_UP` (virtio 1.3, 5.1.4): whoever can read this has us at the other end.
const LINK_UP: u16 = 1;
/// All that a virtio device may have (PCI capability of QEMU and cloud-hypervisor: 256 bytes at most).
const SIZE: usize = 256;

/// The space of one port. Fields of features that we do not offer read as zero.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSpace([u8; SIZE]);

impl ConfigSpace {
    /// `mtu` in bytes of network-layer packet.
    pub(crate) fn new(mac: [u8; 6], queue_pairs: u16, mtu: u16) -> Self {
        let mut bytes = [0; SIZE];
        bytes[0..6].copy_from_slice(&mac);
        bytes[6..8].copy_from_slice(&LINK_UP.to_le_bytes());
        bytes[8..10].copy_from_slice(&queue_pairs.to_le_bytes());
        bytes[10..12].copy_from_slice(&mtu.to_le_bytes());
        ConfigSpace(bytes)
    }

    /// `size` bytes from `offset`; `None` when that goes beyond the space.
    pub(crate) fn read(&self, offset: u32, size: u32) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        self.0.get(Range { start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::virtio_net::virtio_net_config;

    #[test]
    fn fields_lie_where_the_kernel_header_has_them() {
        let space = ConfigSpace::new([2, 0, 0, 0, 0, 9], 4, 1442);
        let at = |offset: usize, size: u32| space.read(offset as u32, size).unwrap();
        assert_eq!(at(std::mem::offset_of!(virtio_net_config, mac), 6), [2, 0, 0, 0, 0, 9]);
        assert_eq!(at(std::mem::offset_of!(virtio_net_config, status), 2), [1, 0]);
        assert_eq!(at(std::mem::offset_of!(virtio_net_config, max_virtqueue_pairs), 2), [4, 0]);
        assert_eq!(at(std::mem::offset_of!(virtio_net_config, mtu), 2), 1442u16.to_le_bytes());
        assert!(at(12, 244).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_read_beyond_the_end_is_refused() {
        let space = ConfigSpace::new([0; 6], 1, 1500);
        assert_eq!(space.read(0, 256).map(<[u8]>::len), Some(256));
        assert!(space.read(0, 257).is_none());
        assert!(space.read(256, 1).is_none());
        assert!(space.read(u32::MAX, u32::MAX).is_none());
    }
}
