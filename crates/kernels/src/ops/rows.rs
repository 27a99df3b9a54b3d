//! Strided views of rows and the splitting of rows over threads. Knows no arithmetic.

use std::marker::PhantomData;
use std::ops::Range;

use crate::Cpu;

/// Read-only rows inside a wider row-major matrix: row t is `data[t·stride + column ..]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The whole matrix.
    pub data: &'a [f32],
    /// Elements from one row to the next.
    pub stride: usize,
    /// First column of the view.
    pub column: usize,
}

/// Mutable rows inside a wider row-major matrix: row t is `data[t·stride + column ..]`.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// The whole matrix.
    pub data: &'a mut [f32],
    /// Elements from one row to the next.
    pub stride: usize,
    /// First column of the view.
    pub column: usize,
}

impl<'a> Rows<'a> {
    /// The view whose row 0 is this one's row `t`.
    #[inline(always)]
    pub fn from_row(self, t: usize) -> Rows<'a> {
        Rows { column: self.column + t * self.stride, ..self }
    }

    /// Row `t` from the view's first column, `width` elements.
    ///
    /// # Panics
    /// When the row does not fit.
    #[inline(always)]
    pub fn row(&self, t: usize, width: usize) -> &'a [f32] {
        let first = t * self.stride + self.column;
        &self.data[first..first + width]
    }
}

/// Elements below which a task is not worth handing to another thread (a hand-over costs some hundred nanoseconds).
const MIN_TASK_ELEMENTS: usize = 16 * 1024;

/// Tasks per thread, so that a busy core does not hold up the rest.
const TASKS_PER_THREAD: usize = 4;

/// Splits `items` (each of about `cost` elements of work) into ranges and runs `task` on each. The split never changes a result.
pub(crate) fn split(cpu: &Cpu, items: usize, cost: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
    let worthwhile = (items * cost.max(1)).div_ceil(MIN_TASK_ELEMENTS);
    let tasks = worthwhile.min(cpu.threads() * TASKS_PER_THREAD).min(items);
    if tasks <= 1 || cpu.threads() == 1 {
        if items > 0 {
            task(0..items);
        }
        return;
    }
    cpu.run(tasks, &|i| task(items * i / tasks..items * (i + 1) / tasks));
}

/// An output that several tasks write at disjoint places.
pub(crate) struct Shared<'a, T> {
    first: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: tasks only reach disjoint ranges, which is what the callers of `slice` promise.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Shared { first: data.as_mut_ptr(), len: data.len(), borrow: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No other task holds an overlapping range.
    #[expect(clippy::mut_from_ref, reason = "the point of the type: disjoint ranges of one output, promised by the caller")]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "range inside the output");
        // SAFETY: in bounds (checked above); disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.end - range.start) }
    }

    /// Where element `i` is. Writing through it is bound by the rule of [`Shared::slice`].
    pub(crate) fn at(&self, i: usize) -> *mut T {
        assert!(i <= self.len, "place inside the output");
        self.first.wrapping_add(i)
    }

    /// Writes one element.
    ///
    /// # Safety
    /// No other task writes or holds it.
    pub(crate) unsafe fn set(&self, i: usize, value: T) {
        // SAFETY: the caller's promise.
        let element = unsafe { self.slice(i..i + 1) };
        element[0] = value;
    }
}

thread_local! {
    static SCRATCH: std::cell::Cell<Vec<f32>> = const { std::cell::Cell::new(Vec::new()) };
}

/// Gives `task` `len` floats of this thread's scratch memory, with whatever was in them. Nested calls get memory of their own.
pub(crate) fn with_scratch<R>(len: usize, task: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with(|cell| {
        let mut memory = cell.take();
        if memory.len() < len {
            memory.resize(len, 0.0);
        }
        let result = task(&mut memory[..len]);
        cell.set(memory);
        result
    })
}
