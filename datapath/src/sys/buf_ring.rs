//! The provided-buffer ring of a shard: buffers that the kernel receives into.
//!
//! The kernel takes a buffer from the head of the ring when bytes arrive and names it in the
//! completion; [`BufRing::take`] then moves it out to the shard, and [`BufRing::give`] puts it back
//! at the tail. A buffer is at every moment in exactly one place: the kernel's (here, as
//! [`Lent`]) or the shard's.
//!
//! Limits: 1..=32,768 buffers (the kernel's), each of any length up to 4 GiB.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::lent::Lent;

/// The page size the ring's memory is aligned to; the kernel maps it by pages.
const PAGE: usize = 4096;

pub(super) struct BufRing {
    memory: NonNull<BufRingEntry>,
    layout: Layout,
    group: u16,
    mask: u16,
    tail: u16,
    buffer_len: usize,
    /// By buffer id; `Some` while the kernel has it.
    buffers: Vec<Option<Lent<[u8]>>>,
    available: usize,
    registered: bool,
}

impl BufRing {
    /// Registers group `group` with `count` buffers of `buffer_len` bytes each.
    pub(super) fn new(
        submitter: &Submitter<'_>,
        group: u16,
        count: u16,
        buffer_len: usize,
    ) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        if count == 0 || count > 32_768 {
            return Err(invalid("the count of receive buffers must be 1..=32768"));
        }
        if buffer_len == 0 || u32::try_from(buffer_len).is_err() {
            return Err(invalid(
                "the length of receive buffers must be 1..=4294967295",
            ));
        }
        let entries = count.next_power_of_two();
        let layout = Layout::array::<BufRingEntry>(usize::from(entries))
            .and_then(|layout| layout.align_to(PAGE))
            .map_err(|_| invalid("too many receive buffers"))?;
        // SAFETY: the layout's size is not zero: there is at least one entry.
        // JUSTIFICATION: the kernel wants page-aligned memory, which no safe container gives.
        let memory = unsafe { alloc_zeroed(layout) }.cast::<BufRingEntry>();
        let memory = NonNull::new(memory).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut ring = Self {
            memory,
            layout,
            group,
            mask: entries - 1,
            tail: 0,
            buffer_len,
            buffers: (0..count).map(|_| None).collect(),
            available: 0,
            registered: false,
        };
        let address = memory.as_ptr().expose_provenance() as u64;
        // SAFETY: the memory is valid for `entries` entries and is freed only after it was
        // unregistered (`retire`); otherwise it is leaked (`drop`).
        unsafe { submitter.register_buf_ring_with_flags(address, entries, group, 0) }?;
        ring.registered = true;
        for id in 0..count {
            ring.give(id, vec![0; buffer_len].into_boxed_slice());
        }
        Ok(ring)
    }

    /// Buffers that the kernel can still receive into, as far as completions have told.
    pub(super) fn available(&self) -> usize {
        self.available
    }

    /// The buffer named by a completion; `None` if the kernel does not have it.
    ///
    /// # Safety
    ///
    /// A completion must just have said that the kernel consumed buffer `id`.
    pub(super) unsafe fn take(&mut self, id: u16) -> Option<Box<[u8]>> {
        let lent = self.buffers.get_mut(usize::from(id))?.take()?;
        self.available -= 1;
        // SAFETY: by the contract the kernel consumed it: its one request with this buffer is over.
        Some(unsafe { lent.take_back() })
    }

    /// Puts buffer `id` back. If the memory is not of this ring's length, or the id is not one that
    /// is out, nothing of the caller's gets to the kernel: a fresh buffer does, or none.
    pub(super) fn give(&mut self, id: u16, memory: Box<[u8]>) -> bool {
        let Some(place @ None) = self.buffers.get_mut(usize::from(id)) else {
            return false;
        };
        let memory = if memory.len() == self.buffer_len {
            memory
        } else {
            vec![0; self.buffer_len].into_boxed_slice()
        };
        let lent = Lent::lend(memory);
        let address = lent.as_ptr().cast::<u8>().expose_provenance() as u64;
        *place = Some(lent);
        self.available += 1;

        let index = usize::from(self.tail & self.mask);
        // SAFETY: the index is masked, so it lies in the allocation.
        let entry = unsafe { self.memory.add(index) };
        // SAFETY: the memory is initialised (zeroed), aligned, and the kernel does not read an
        // entry at or behind the tail, of which there is room: at most `count` ids are ever in.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.buffer_len).unwrap_or(u32::MAX));
        entry.set_bid(id);

        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the base address of the ring is what the call asks for.
        let tail = unsafe { BufRingEntry::tail(self.memory.as_ptr()) };
        // SAFETY: the tail lies in the allocation, is aligned, and is only accessed atomically from
        // here on (entry 0's setters do not touch it).
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        true
    }

    /// Unregisters the ring and frees its buffers; if that fails, they stay lent and leak.
    ///
    /// # Safety
    ///
    /// No request that selects from this group may be under way.
    pub(super) unsafe fn retire(&mut self, submitter: &Submitter<'_>) {
        if submitter.unregister_buf_ring(self.group).is_err() {
            return;
        }
        self.registered = false;
        for lent in self.buffers.iter_mut().filter_map(Option::take) {
            // SAFETY: unregistered, and by the contract no request uses a buffer.
            drop(unsafe { lent.take_back() });
        }
        self.available = 0;
    }
}

impl Drop for BufRing {
    fn drop(&mut self) {
        // Buffers still lent and a ring still registered are leaked: the kernel may use them.
        if !self.registered {
            // SAFETY: allocated in `new` with this layout, unregistered, freed once.
            unsafe { dealloc(self.memory.as_ptr().cast(), self.layout) };
        }
    }
}
