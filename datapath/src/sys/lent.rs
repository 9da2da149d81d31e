//! Memory that the kernel may be reading or writing.

use std::ptr::NonNull;

/// A box lent to the kernel: Rust holds no reference to it until [`Lent::take_back`].
///
/// Dropping it leaks the memory on purpose: that is the safe end when nobody can say whether the
/// kernel is done with it.
#[derive(Debug)]
pub(super) struct Lent<T: ?Sized>(NonNull<T>);

impl<T: ?Sized> Lent<T> {
    /// Takes the memory out of Rust's hands.
    pub(super) fn lend(memory: Box<T>) -> Self {
        Self(NonNull::from(Box::leak(memory)))
    }

    /// Where the memory is.
    pub(super) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// Takes the memory back.
    ///
    /// # Safety
    ///
    /// No request that names this memory may be under way, and none may be submitted later: the
    /// final completion of each was seen, or the request never reached the kernel.
    pub(super) unsafe fn take_back(self) -> Box<T> {
        // SAFETY: the pointer came from Box::leak in `lend`, `self` is consumed so this happens
        // once, and by the contract nobody else uses the memory any more.
        unsafe { Box::from_raw(self.0.as_ptr()) }
    }
}
