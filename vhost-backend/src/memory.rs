//! Guest memory as the rings see it: a short list of regions, guest addresses turned into host pointers.

#![expect(unsafe_code, reason = "a region's base pointer is shared between threads")]

use std::io;
use std::sync::Arc;

use vhost_user_backend::bitmap::BitmapMmapRegion;
use vm_memory::bitmap::Bitmap;
use vm_memory::{
    Address, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};

use crate::sigbus::{self, Registration};

/// Guest memory with the dirty log that live migration asks for.
pub(crate) type Memory = GuestMemoryMmap<BitmapMmapRegion>;
/// The same, replaceable at run time, as `vhost-user-backend` hands it out.
pub(crate) type AtomicMemory = GuestMemoryAtomic<Memory>;

/// One generation of a port's guest memory, shared by its rings. While any ring holds it, its pages stay mapped.
pub(crate) struct Mapping {
    /// Sorted by guest address. Declared first: dropped (and so unregistered) before `_memory` unmaps.
    regions: Vec<Region>,
    _memory: Arc<Memory>,
}

struct Region {
    gpa: u64,
    len: u64,
    host: *mut u8,
    registration: Registration,
    mmap: Arc<vm_memory::MmapRegion<BitmapMmapRegion>>,
}

// SAFETY: `host` is the base of `mmap`, which this struct keeps alive; it is only turned into addresses.
unsafe impl Send for Region {}
// SAFETY: as above; nothing in Region is mutated through a shared reference.
unsafe impl Sync for Region {}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapping of {} regions", self.regions.len())
    }
}

impl Mapping {
    /// Lists the regions of `memory` and registers them with the SIGBUS handler.
    pub(crate) fn new(memory: Arc<Memory>) -> io::Result<Arc<Self>> {
        let mut regions = Vec::with_capacity(memory.num_regions());
        for region in memory.iter() {
            regions.push(Region {
                gpa: region.start_addr().raw_value(),
                len: region.len(),
                host: region.as_ptr(),
                registration: register(region)?,
                mmap: region.get_mmap(),
            });
        }
        regions.sort_by_key(|region| region.gpa);
        Ok(Arc::new(Mapping { regions, _memory: memory }))
    }

    /// The host address of `[gpa, gpa + len)` if one region holds all of it. `hint` remembers the region of the last
    /// hit: nearly every lookup of a ring falls into the same one.
    #[inline(always)]
    pub(crate) fn translate(&self, gpa: u64, len: u32, hint: &mut usize) -> Option<*mut u8> {
        if let Some(region) = self.regions.get(*hint) {
            let offset = gpa.wrapping_sub(region.gpa);
            if offset < region.len && u64::from(len) <= region.len - offset {
                return Some(region.host.wrapping_add(offset as usize));
            }
        }
        self.translate_slow(gpa, len, hint)
    }

    #[cold]
    #[inline(never)]
    fn translate_slow(&self, gpa: u64, len: u32, hint: &mut usize) -> Option<*mut u8> {
        let (index, offset) = self.locate(gpa)?;
        let region = &self.regions[index];
        if u64::from(len) > region.len - offset {
            return None;
        }
        *hint = index;
        Some(region.host.wrapping_add(offset as usize))
    }

    /// The host address of `gpa` and how many of `len` bytes lie in that region; a buffer may span neighbours.
    pub(crate) fn translate_part(&self, gpa: u64, len: u32) -> Option<(*mut u8, u32)> {
        let (index, offset) = self.locate(gpa)?;
        let region = &self.regions[index];
        let here = u32::try_from(region.len - offset).unwrap_or(u32::MAX).min(len);
        Some((region.host.wrapping_add(offset as usize), here))
    }

    fn locate(&self, gpa: u64) -> Option<(usize, u64)> {
        let index = self.regions.partition_point(|region| region.gpa <= gpa).checked_sub(1)?;
        let offset = gpa - self.regions[index].gpa;
        (offset < self.regions[index].len).then_some((index, offset))
    }

    /// Marks `[gpa, gpa + len)` in the migration log, where one is set.
    #[cold]
    pub(crate) fn mark_dirty(&self, mut gpa: u64, len: u32) {
        let mut left = u64::from(len);
        while left > 0 {
            let Some((index, offset)) = self.locate(gpa) else { return };
            let region = &self.regions[index];
            let here = left.min(region.len - offset);
            region.mmap.bitmap().mark_dirty(offset as usize, here as usize);
            left -= here;
            let Some(next) = gpa.checked_add(here) else { return };
            gpa = next;
        }
    }

    /// Whether the file behind any region was cut short under us.
    pub(crate) fn poisoned(&self) -> bool {
        self.regions.iter().any(|region| region.registration.hit())
    }
}

/// Notices once per burst, for the price of one load, that some mapping of the process was cut short.
#[derive(Debug)]
pub(crate) struct PoisonWatch(u64);

impl PoisonWatch {
    /// Starts at zero, so that the first check after any hit looks at the mapping itself.
    pub(crate) fn new() -> Self {
        PoisonWatch(0)
    }

    #[inline(always)]
    pub(crate) fn poisoned(&mut self, mapping: &Mapping) -> bool {
        let now = sigbus::hits();
        if now == self.0 {
            return false;
        }
        self.look(now, mapping)
    }

    #[cold]
    fn look(&mut self, now: u64, mapping: &Mapping) -> bool {
        self.0 = now;
        mapping.poisoned()
    }
}

fn register(region: &GuestRegionMmap<BitmapMmapRegion>) -> io::Result<Registration> {
    let page = match region.file_offset() {
        Some(file) => page_size(file.file()),
        None => PAGE,
    };
    let len = (region.len() as usize).next_multiple_of(page);
    Registration::new(region.as_ptr() as usize, len)
}

/// x86-64 base page; a hugetlbfs file tells its own.
const PAGE: usize = 4096;
/// linux/magic.h
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

fn page_size(file: &std::fs::File) -> usize {
    match rustix::fs::fstatfs(file) {
        Ok(stat) if stat.f_type as u64 == HUGETLBFS_MAGIC => stat.f_bsize as usize,
        _ => PAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestAddress;

    fn two_neighbours_and_one_apart() -> Arc<Mapping> {
        let ranges = [
            (GuestAddress(0x10000), 0x2000),
            (GuestAddress(0x12000), 0x1000),
            (GuestAddress(0x40000), 0x1000),
        ];
        Mapping::new(Arc::new(Memory::from_ranges(&ranges).unwrap())).unwrap()
    }

    #[test]
    fn a_range_is_translated_only_when_one_region_holds_it_whole() {
        let map = two_neighbours_and_one_apart();
        let mut hint = 0;
        assert!(map.translate(0x10000, 0x2000, &mut hint).is_some());
        assert!(map.translate(0x10000, 0x2001, &mut hint).is_none());
        assert!(map.translate(0xffff, 1, &mut hint).is_none());
        assert!(map.translate(0x40fff, 1, &mut hint).is_some());
        assert_eq!(hint, 2);
        assert!(map.translate(0x40fff, 2, &mut hint).is_none());
        assert!(map.translate(u64::MAX, 1, &mut hint).is_none());
        assert!(map.translate(u64::MAX - 3, u32::MAX, &mut hint).is_none());
        assert!(map.translate(0x41000, 0, &mut hint).is_none());
    }

    #[test]
    fn a_buffer_that_spans_neighbours_comes_in_parts() {
        let map = two_neighbours_and_one_apart();
        let (_, here) = map.translate_part(0x11f00, 0x200).unwrap();
        assert_eq!(here, 0x100);
        let (_, rest) = map.translate_part(0x12000, 0x100).unwrap();
        assert_eq!(rest, 0x100);
        assert!(map.translate_part(0x13000, 1).is_none());
    }
}
