//! Pauses of a long computation: between two tasks of whatever op it is in, once its slice of time is over, something else computes on the same pool.
//! Tasks are wholes, so a pause changes no bit of either. Knows neither the long computation nor what runs in between.

use std::cell::Cell;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// What runs in a pause; returns the next slice of the long computation.
type Between<'a> = dyn FnMut() -> Duration + 'a;

#[derive(Clone, Copy)]
struct Armed {
    due: Instant,
    between: NonNull<Between<'static>>,
}

thread_local! {
    /// The long computation of this thread. None in a pause: what runs there is not paused.
    static ARMED: Cell<Option<Armed>> = const { Cell::new(None) };
}

/// Puts back what was there before, also after a panic.
struct Restore(Option<Armed>);

impl Drop for Restore {
    fn drop(&mut self) {
        ARMED.set(self.0);
    }
}

/// Runs `work` on this thread; see [`crate::Cpu::pausing`].
pub(super) fn pausing<R>(slice: Duration, between: &mut Between<'_>, work: impl FnOnce() -> R) -> R {
    // SAFETY: only the lifetime is changed. The pointer is reached through ARMED alone, which `Restore` resets before this function is left.
    let between = unsafe { std::mem::transmute::<NonNull<Between<'_>>, NonNull<Between<'static>>>(NonNull::from(between)) };
    let _restore = Restore(ARMED.replace(Some(Armed { due: Instant::now() + slice, between })));
    work()
}

/// Whether the long computation of this thread has used up its slice.
pub(super) fn is_due() -> bool {
    ARMED.get().is_some_and(|armed| Instant::now() >= armed.due)
}

/// Pauses if it is time. Called where this thread is in no task and no job is open.
pub(super) fn take_if_due() {
    if !is_due() {
        return;
    }
    let Some(mut armed) = ARMED.take() else { return };
    // After a panic in the pause the long computation is unwound, and `pausing` restores.
    // SAFETY: `pausing` is still running, and nobody else has the pointer while ARMED is empty.
    let slice = unsafe { armed.between.as_mut() }();
    armed.due = Instant::now() + slice;
    ARMED.set(Some(armed));
}
