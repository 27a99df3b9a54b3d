//! Runs one compilation or render on a thread of its own. The engine bounds steps and output but neither the nesting of values, which
//! its recursions follow on the stack, nor the work hidden in one step (lists doubled sixty times are counted for
//! centuries). So the stack is large enough for what the steps can nest, and the caller waits only so long. Small renders, nearly all,
//! share two threads that are kept: making one takes longer than the render.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Longest wait for one render. Published templates take under a millisecond; this allows for a machine under load.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Stack for each step that the render may take, bytes: a step nests a value by at most one level, and the deepest
/// recursion uses some 1,600 bytes a level in an unoptimised build. Only reserved; pages are used as they are touched.
const STACK_BYTES_PER_STEP: usize = 2048;
/// Renders of one template that may hang at once before it is refused: each keeps a core busy.
const MAX_HANGING: usize = 1;
/// Steps of a render that a kept thread's stack is for: a few messages, some 40 kB.
const KEPT_STEPS: u64 = 1 << 16;
/// Threads of one template that are kept.
const MAX_KEPT: usize = 2;

const RUNNING: u8 = 0;
const OVERDUE: u8 = 1;
const FINISHED: u8 = 2;

/// Why a template is refused that did not come to its end in time.
pub(super) const TOO_LONG: &str = "takes longer than any conversation of this size should need";

type Work = Box<dyn FnOnce() + Send>;

/// The threads of one template. Dropping the last handle ends those that are kept.
#[derive(Clone)]
pub(super) struct Threads {
    work: Sender<Work>,
    shared: Arc<Shared>,
}

struct Shared {
    /// How many renders hang.
    hanging: AtomicUsize,
    /// Kept threads, and small renders that are not at their end.
    kept: AtomicUsize,
    small: AtomicUsize,
    inbox: Arc<Mutex<Receiver<Work>>>,
}

impl Default for Threads {
    fn default() -> Self {
        let (work, inbox) = channel();
        let inbox = Arc::new(Mutex::new(inbox));
        let shared = Shared { hanging: AtomicUsize::new(0), kept: AtomicUsize::new(0), small: AtomicUsize::new(0), inbox };
        Self { work, shared: Arc::new(shared) }
    }
}

/// A render under way.
pub(super) struct Running {
    state: Arc<AtomicU8>,
    shared: Arc<Shared>,
}

impl Running {
    /// The caller waits no longer than [`DEADLINE`]: unless it is at its end, the render counts as hanging until it is.
    pub(super) fn give_up(&self) {
        // Counted before it is marked, so that the thread's own subtraction cannot come first.
        self.shared.hanging.fetch_add(1, Ordering::SeqCst);
        if self.state.compare_exchange(RUNNING, OVERDUE, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            self.shared.hanging.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Starts `render` (or a compilation), which takes at most `max_steps` steps. The error says why it is refused.
pub(super) fn begin(threads: &Threads, max_steps: u64, render: impl FnOnce() + Send + 'static) -> Result<Running, &'static str> {
    let shared = &threads.shared;
    if shared.hanging.load(Ordering::SeqCst) >= MAX_HANGING {
        return Err("is refused, since an earlier render has not come to an end");
    }
    let state = Arc::new(AtomicU8::new(RUNNING));
    let running = Running { state: Arc::clone(&state), shared: Arc::clone(shared) };
    let small = max_steps <= KEPT_STEPS;
    let their_shared = Arc::clone(shared);
    let body = move || {
        // The caller learns of a panic by what the render held.
        let _ = catch_unwind(AssertUnwindSafe(render));
        if small {
            their_shared.small.fetch_sub(1, Ordering::SeqCst);
        }
        if state.swap(FINISHED, Ordering::SeqCst) == OVERDUE {
            their_shared.hanging.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let unfit = |_| "found no memory for its stack";
    if !small {
        spawn(max_steps, body).map_err(unfit)?;
        return Ok(running);
    }
    let waiting = shared.small.fetch_add(1, Ordering::SeqCst) + 1;
    if let Err(error) = keep_threads(shared, waiting) {
        shared.small.fetch_sub(1, Ordering::SeqCst);
        return Err(unfit(error));
    }
    // The receiver is in `shared`: it is there.
    let _ = threads.work.send(Box::new(body));
    Ok(running)
}

/// [`begin`], and waits for the result. The error says why there is none.
pub(super) fn isolated<T: Send + 'static>(
    threads: &Threads,
    max_steps: u64,
    render: impl FnOnce() -> T + Send + 'static,
) -> Result<T, &'static str> {
    let (sender, receiver) = sync_channel(1);
    // The receiver may be gone; then nobody wants the result.
    let running = begin(threads, max_steps, move || drop(sender.send(render())))?;
    match receiver.recv_timeout(DEADLINE) {
        Ok(result) => Ok(result),
        Err(RecvTimeoutError::Disconnected) => Err("failed inside the template engine"),
        Err(RecvTimeoutError::Timeout) => {
            running.give_up();
            Err(TOO_LONG)
        }
    }
}

/// One more thread where there are fewer than `waiting` small renders and than may be kept. An error only where there would be none.
fn keep_threads(shared: &Shared, waiting: usize) -> std::io::Result<()> {
    let more = |kept| (kept < waiting.min(MAX_KEPT)).then_some(kept + 1);
    if shared.kept.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_err() {
        return Ok(());
    }
    let inbox = Arc::clone(&shared.inbox);
    let spawned = spawn(KEPT_STEPS, move || {
        loop {
            let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(work) = next else { return };
            work();
        }
    });
    match spawned {
        Err(error) if shared.kept.fetch_sub(1, Ordering::SeqCst) == 1 => Err(error),
        _ => Ok(()),
    }
}

fn spawn(max_steps: u64, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let stack_bytes = (max_steps as usize).saturating_mul(STACK_BYTES_PER_STEP);
    thread::Builder::new().name("chat-template".to_owned()).stack_size(stack_bytes).spawn(body).map(drop)
}
