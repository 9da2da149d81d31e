//! An allocator that counts, for the tests that promise "nothing is allocated here".
//!
//! ```no_run
//! use datapath::sys::alloc::{CountingAllocator, counted};
//!
//! #[global_allocator]
//! static ALLOCATOR: CountingAllocator = CountingAllocator;
//!
//! let (sum, allocations) = counted(|| 1 + 1);
//! assert_eq!(allocations.count, 0);
//! # let _ = sum;
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Allocations of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Calls that gave memory, growing and shrinking included.
    pub count: u64,
    /// Bytes asked for by them.
    pub bytes: u64,
    /// Calls that gave memory back.
    pub frees: u64,
    /// Bytes given back, by growing and shrinking too: what is held is `bytes - freed_bytes`.
    pub freed_bytes: u64,
}

thread_local! {
    static ALLOCATIONS: Cell<Allocations> = const {
        Cell::new(Allocations { count: 0, bytes: 0, frees: 0, freed_bytes: 0 })
    };
}

/// The allocations of the calling thread since it started, if [`CountingAllocator`] is the global
/// allocator; else nothing.
#[must_use]
pub fn allocations() -> Allocations {
    ALLOCATIONS.get()
}

/// Runs `work` and says what this thread allocated meanwhile.
pub fn counted<T>(work: impl FnOnce() -> T) -> (T, Allocations) {
    let before = allocations();
    let result = work();
    let after = allocations();
    let difference = Allocations {
        count: after.count - before.count,
        bytes: after.bytes - before.bytes,
        frees: after.frees - before.frees,
        freed_bytes: after.freed_bytes - before.freed_bytes,
    };
    (result, difference)
}

/// The system's allocator with a count by thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

fn count(change: impl FnOnce(&mut Allocations)) {
    // A thread that is ending allocates uncounted.
    let _ = ALLOCATIONS.try_with(|cell| {
        let mut allocations = cell.get();
        change(&mut allocations);
        cell.set(allocations);
    });
}

fn count_given(bytes: usize) {
    count(|allocations| {
        allocations.count += 1;
        allocations.bytes += bytes as u64;
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates (the
// thread-local is const and needs no destructor) nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_given(layout.size());
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_given(layout.size());
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count_given(new_size);
        count(|allocations| allocations.freed_bytes += layout.size() as u64);
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.realloc(memory, layout, new_size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(|allocations| {
            allocations.frees += 1;
            allocations.freed_bytes += layout.size() as u64;
        });
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.dealloc(memory, layout) }
    }
}
