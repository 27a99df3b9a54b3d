//! Memory for weights and scratch: aligned, and on huge pages where the system has them.
//! Does not know what lies in it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// A huge page of x86-64, and of AArch64 with 4 KiB pages.
pub(crate) const HUGE_BYTES: usize = 2 << 20;
/// A cache line.
pub(crate) const LINE_BYTES: usize = 64;
/// Scratch buffers kept for reuse: an op holds one for its activations and one per thread for a panel.
const KEPT_BUFFERS: usize = 64;

/// Uninitialised bytes, aligned to a cache line; from 2 MiB up to a huge page, and asked to be on such. Pages come with the first
/// touch, so that a large weight is never in memory twice and lies near the thread that packs it.
pub(crate) struct HugeBuffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: owns its bytes like a Box<[u8]>.
unsafe impl Send for HugeBuffer {}
// SAFETY: `&HugeBuffer` gives only a raw pointer, whose use is the user's promise.
unsafe impl Sync for HugeBuffer {}

impl HugeBuffer {
    pub(crate) fn new(bytes: usize) -> HugeBuffer {
        let align = if bytes >= HUGE_BYTES { HUGE_BYTES } else { LINE_BYTES };
        let size = bytes.max(1).next_multiple_of(LINE_BYTES);
        let Ok(layout) = Layout::from_size_align(size, align) else { panic!("{bytes} bytes are more than an address space holds") };
        // SAFETY: the size is not zero.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        if bytes >= HUGE_BYTES {
            // SAFETY: the range is ours.
            unsafe { ask_for_huge_pages(start.as_ptr(), size) };
        }
        HugeBuffer { start, layout }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.layout.size()
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for HugeBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Elements that the operating system zeroes when they are touched, on huge pages where there are such: a page of 4 KiB costs some
/// microsecond when it is touched, and a layer's activations have 50,000 of them.
pub fn zeros<T: Copy + Default>(elements: usize) -> Vec<T> {
    let mut data = vec![T::default(); elements];
    // SAFETY: the vector's own memory.
    unsafe { ask_for_huge_pages(data.as_mut_ptr().cast(), size_of_val(&data[..])) };
    data
}

/// Asks for huge pages where whole ones fit in. Refused advice changes nothing.
///
/// # Safety
/// The range is allocated.
pub(crate) unsafe fn ask_for_huge_pages(start: *mut u8, bytes: usize) {
    let skip = start.align_offset(HUGE_BYTES);
    #[cfg(target_os = "linux")]
    if skip < bytes && bytes - skip >= HUGE_BYTES {
        // SAFETY: inside the range, by the caller's promise; advice changes no content.
        unsafe { libc::madvise(start.add(skip).cast(), bytes - skip, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (skip, bytes);
}

/// Buffers that ops borrow, so that no op pays for fresh pages.
#[derive(Default)]
pub(crate) struct Scratch {
    free: Mutex<Vec<HugeBuffer>>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// A borrowed buffer; uninitialised. Goes back when dropped.
pub(crate) struct Borrowed<'a> {
    scratch: &'a Scratch,
    buffer: Option<HugeBuffer>,
}

impl Scratch {
    /// At least `bytes`: the smallest free buffer that holds them, else a new one in place of the largest free one.
    pub(crate) fn borrow(&self, bytes: usize) -> Borrowed<'_> {
        let found = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let best = (0..free.len()).filter(|&i| free[i].bytes() >= bytes).min_by_key(|&i| free[i].bytes());
            let largest = (0..free.len()).max_by_key(|&i| free[i].bytes());
            best.or(largest).map(|i| free.swap_remove(i))
        };
        let buffer = found.filter(|b| b.bytes() >= bytes).unwrap_or_else(|| HugeBuffer::new(bytes));
        Borrowed { scratch: self, buffer: Some(buffer) }
    }
}

impl Borrowed<'_> {
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.buffer.as_ref().map_or(std::ptr::null_mut(), HugeBuffer::as_ptr)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let mut free = self.scratch.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = self.buffer.take().filter(|_| free.len() < KEPT_BUFFERS) {
            free.push(buffer);
        }
    }
}

/// A pointer into memory of which each task writes its own part.
pub(crate) struct Split<T>(*mut T);

impl<T> Clone for Split<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Split<T> {}

// SAFETY: a pointer is only an address; whoever dereferences it promises that no two tasks touch the same part.
unsafe impl<T: Send> Send for Split<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Split<T> {}

impl<T> Split<T> {
    pub(crate) fn new(start: *mut T) -> Split<T> {
        Split(start)
    }

    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_reused_and_grows() {
        let scratch = Scratch::default();
        let first = {
            let small = scratch.borrow(100);
            let large = scratch.borrow(4 << 20);
            assert_eq!(large.as_ptr() as usize % HUGE_BYTES, 0);
            assert_eq!(small.as_ptr() as usize % LINE_BYTES, 0);
            small.as_ptr()
        };
        assert_eq!(scratch.borrow(64).as_ptr(), first);
        drop(scratch.borrow(8 << 20));
        let sizes: Vec<usize> = scratch.free.lock().unwrap().iter().map(HugeBuffer::bytes).collect();
        assert_eq!(sizes, [128, 8 << 20]);
    }
}
