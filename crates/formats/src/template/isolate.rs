//! Runs one compilation or render on a thread of its own. The engine bounds steps and output but neither the nesting of values, which
//! its recursions follow on the stack, nor the work hidden in one step (lists doubled sixty times are counted for
//! centuries). So the stack is large enough for what the steps can nest, and the caller waits only so long. Threads that came to their
//! end are kept for the next render: making one takes longer than most renders.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Longest wait for one render. Published templates take under a millisecond; this allows for a machine under load.
const DEADLINE: Duration = Duration::from_secs(5);
/// Stack for each step that the render may take, bytes: a step nests a value by at most one level, and the deepest
/// recursion uses some 1,600 bytes a level in an unoptimised build. Only reserved; pages are used as they are touched.
const STACK_BYTES_PER_STEP: usize = 2048;
/// Renders of one template that may hang at once before it is refused: each keeps a core busy.
const MAX_HANGING: usize = 1;
/// Threads of one template that are kept: as many as a few cores use at once.
const MAX_IDLE: usize = 4;

const RUNNING: u8 = 0;
const OVERDUE: u8 = 1;
const FINISHED: u8 = 2;

/// The threads of one template.
#[derive(Clone, Default)]
pub(super) struct Threads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How many renders hang.
    hanging: AtomicUsize,
    idle: Mutex<Vec<Idle>>,
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that waits for work. Dropping it ends the thread.
struct Idle {
    stack_bytes: usize,
    work: SyncSender<Work>,
}

/// What a thread is handed: a render, and itself, so that it can wait again.
type Work = (Box<dyn FnOnce() + Send>, Idle);

/// Runs `render` (or a compilation), which takes at most `max_steps` steps. The error says why there is no result.
pub(super) fn isolated<T: Send + 'static>(
    threads: &Threads,
    max_steps: u64,
    render: impl FnOnce() -> T + Send + 'static,
) -> Result<T, &'static str> {
    let shared = &threads.0;
    if shared.hanging.load(Ordering::SeqCst) >= MAX_HANGING {
        return Err("is refused, since an earlier render has not come to an end");
    }
    let state = Arc::new(AtomicU8::new(RUNNING));
    let (sender, receiver) = sync_channel(1);
    let (their_state, their_shared) = (Arc::clone(&state), Arc::clone(shared));
    let body = move || {
        // The receiver may be gone; then nobody wants the result.
        let _ = sender.send(render());
        if their_state.swap(FINISHED, Ordering::SeqCst) == OVERDUE {
            their_shared.hanging.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let stack_bytes = (max_steps as usize).saturating_mul(STACK_BYTES_PER_STEP);
    start(shared, stack_bytes, Box::new(body)).map_err(|_| "found no memory for its stack")?;
    match receiver.recv_timeout(DEADLINE) {
        Ok(result) => Ok(result),
        Err(RecvTimeoutError::Disconnected) => Err("failed inside the template engine"),
        Err(RecvTimeoutError::Timeout) => {
            // Counted before it is marked, so that the thread's own subtraction cannot come first.
            shared.hanging.fetch_add(1, Ordering::SeqCst);
            if state.compare_exchange(RUNNING, OVERDUE, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                shared.hanging.fetch_sub(1, Ordering::SeqCst);
            }
            Err("takes longer than any conversation of this size should need")
        }
    }
}

/// Hands `body` to an idle thread whose stack is large enough, or to a new one.
fn start(shared: &Arc<Shared>, stack_bytes: usize, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
    let mut idle = shared.idle();
    let found = idle.iter().position(|idle| idle.stack_bytes >= stack_bytes).map(|at| idle.swap_remove(at));
    drop(idle);
    let idle = match found {
        Some(idle) => idle,
        None => {
            // Rounded up, so that conversations of about the same size share threads.
            let stack_bytes = stack_bytes.checked_next_power_of_two().unwrap_or(stack_bytes);
            let (work, inbox) = sync_channel(1);
            let shared = Arc::downgrade(shared);
            let builder = thread::Builder::new().name("chat-template".to_owned()).stack_size(stack_bytes);
            builder.spawn(move || live(&inbox, &shared))?;
            Idle { stack_bytes, work }
        }
    };
    let work = idle.work.clone();
    work.send((body, idle)).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
}

/// A thread's life: work until nobody keeps it.
fn live(inbox: &Receiver<Work>, shared: &Weak<Shared>) {
    while let Ok((body, me)) = inbox.recv() {
        // The caller learns of a panic by the channel that it closes.
        let _ = catch_unwind(AssertUnwindSafe(body));
        let Some(shared) = shared.upgrade() else { return };
        let mut idle = shared.idle();
        if idle.len() < MAX_IDLE {
            idle.push(me);
        }
    }
}
