//! Runs one compilation or render on a thread of its own. The engine bounds steps and output but neither the nesting of values, which
//! its recursions follow on the stack, nor the work hidden in one step (lists doubled sixty times are counted for
//! centuries). So the stack is large enough for what the steps can nest, and the caller waits only so long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// Longest wait for one render. Published templates take under a millisecond; this allows for a machine under load.
const DEADLINE: Duration = Duration::from_secs(5);
/// Stack for each step that the render may take, bytes: a step nests a value by at most one level, and the deepest
/// recursion uses some 1,600 bytes a level in an unoptimised build. Only reserved; pages are used as they are touched.
const STACK_BYTES_PER_STEP: usize = 2048;
/// Renders of one template that may hang at once before it is refused: each keeps a core busy.
const MAX_HANGING: usize = 1;

const RUNNING: u8 = 0;
const OVERDUE: u8 = 1;
const FINISHED: u8 = 2;

/// How many renders of one template hang.
#[derive(Debug, Clone, Default)]
pub(super) struct Hanging(Arc<AtomicUsize>);

/// Runs `render` (or a compilation), which takes at most `max_steps` steps. The error says why there is no result.
pub(super) fn isolated<T: Send + 'static>(
    hanging: &Hanging,
    max_steps: u64,
    render: impl FnOnce() -> T + Send + 'static,
) -> Result<T, &'static str> {
    let hanging = Arc::clone(&hanging.0);
    if hanging.load(Ordering::SeqCst) >= MAX_HANGING {
        return Err("is refused, since an earlier render has not come to an end");
    }
    let state = Arc::new(AtomicU8::new(RUNNING));
    let (sender, receiver) = sync_channel(1);
    let (their_state, their_hanging) = (Arc::clone(&state), Arc::clone(&hanging));
    let body = move || {
        // The receiver may be gone; then nobody wants the result.
        let _ = sender.send(render());
        if their_state.swap(FINISHED, Ordering::SeqCst) == OVERDUE {
            their_hanging.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let stack_bytes = (max_steps as usize).saturating_mul(STACK_BYTES_PER_STEP);
    let builder = thread::Builder::new().name("chat-template".to_owned()).stack_size(stack_bytes);
    builder.spawn(body).map_err(|_| "found no memory for its stack")?;
    match receiver.recv_timeout(DEADLINE) {
        Ok(result) => Ok(result),
        Err(RecvTimeoutError::Disconnected) => Err("failed inside the template engine"),
        Err(RecvTimeoutError::Timeout) => {
            // Counted before it is marked, so that the thread's own subtraction cannot come first.
            hanging.fetch_add(1, Ordering::SeqCst);
            if state.compare_exchange(RUNNING, OVERDUE, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                hanging.fetch_sub(1, Ordering::SeqCst);
            }
            Err("takes longer than any conversation of this size should need")
        }
    }
}
