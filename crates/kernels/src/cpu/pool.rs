//! A persistent pool of threads for fork-join: spins briefly between jobs, then sleeps.
//! Does not know what the tasks compute, and never waits for a worker that has not joined the job:
//! when the other cores are busy with something else, the caller simply does the work itself.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::pause;

/// How long a thread spins before it sleeps: longer than the serial gaps between two ops of a decode step, far shorter than
/// anything that shows as load at rest.
const SPIN: Duration = Duration::from_micros(40);
/// Spins between two looks at the clock.
const SPINS_PER_CLOCK: usize = 32;

/// `Shared::state`: job number in the high half; below it a bit for "may be joined", one for "the caller sleeps", and the count of
/// workers inside the job.
const EPOCH_ONE: u64 = 1 << 32;
const OPEN: u64 = 1 << 31;
const CALLER_SLEEPS: u64 = 1 << 30;
const ACTIVE: u64 = CALLER_SLEEPS - 1;

/// `Shared::next` after a stop: more than any job has tasks, with room to count on.
const ALL_TAKEN: usize = usize::MAX / 2;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// What the workers of one job read. The reference is valid while the job is open or a worker is inside it.
#[derive(Clone, Copy)]
struct Job {
    task: &'static Task<'static>,
    tasks: usize,
}

struct Shared {
    state: AtomicU64,
    /// Next task to hand out. On its own cache line's worth of distance from `state` does not matter: both are hot only in a job.
    next: AtomicUsize,
    /// Written by the caller while the job is closed and nobody is inside, read by workers that have joined.
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    quit: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    done: Mutex<()>,
    all_left: Condvar,
}

// SAFETY: `job` is the only field that is not Sync; it is written only by the one caller that holds `Pool::turn`, while `state` has no
// OPEN bit and no active worker, and read only by workers counted in `state`.
unsafe impl Sync for Shared {}
// SAFETY: the task reference inside is to a Sync closure.
unsafe impl Send for Shared {}

/// `threads − 1` workers and the caller.
pub(crate) struct Pool {
    threads: usize,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One job at a time.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads).finish_non_exhaustive()
    }
}

thread_local! {
    /// Whether this thread is inside a task: a nested `run` is done inline.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A panic is caught at each task, so that a poisoned lock only means "someone panicked while holding it": the data is `()`.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spins until `ready` or the time is over; true if ready.
fn spin(ready: impl Fn() -> bool) -> bool {
    let mut begin = None;
    loop {
        for _ in 0..SPINS_PER_CLOCK {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if begin.get_or_insert_with(Instant::now).elapsed() > SPIN {
            return false;
        }
    }
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            quit: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            done: Mutex::new(()),
            all_left: Condvar::new(),
        });
        let mut workers = Vec::new();
        for i in 1..threads.max(1) {
            let shared = Arc::clone(&shared);
            // A system that refuses a thread still computes, with fewer.
            match std::thread::Builder::new().name(format!("kernel-{i}")).spawn(move || shared.work()) {
                Ok(worker) => workers.push(worker),
                Err(_) => break,
            }
        }
        Pool { threads: workers.len() + 1, shared, workers, turn: Mutex::new(()) }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    pub(crate) fn run(&self, tasks: usize, task: &Task<'_>) {
        if INSIDE.get() {
            (0..tasks).for_each(task);
            return;
        }
        let (mut done, mut panic) = (0, None);
        while done < tasks {
            pause::take_if_due();
            if tasks - done == 1 || self.threads == 1 {
                task(done);
                done += 1;
            } else {
                let (reached, caught) = self.run_until_pause(tasks - done, &|i| task(done + i));
                done += reached;
                panic = panic.or(caught);
            }
        }
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Runs tasks from the first on until all are done or a pause is due; returns how many, and the first panic.
    fn run_until_pause(&self, tasks: usize, task: &Task<'_>) -> (usize, Option<Box<dyn Any + Send>>) {
        let _turn = lock(&self.turn);
        self.shared.open(task, tasks);
        let job = Job { task: forget_lifetime(task), tasks };
        let reached = self.shared.take_tasks(job, &pause::is_due);
        self.shared.close();
        (reached, lock(&self.shared.panic).take())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // Tasks' panics are caught; a worker that still died has nothing left to hand over.
            let _ = worker.join();
        }
    }
}

fn forget_lifetime(task: &Task<'_>) -> &'static Task<'static> {
    // SAFETY: `Pool::run` does not return before the job is closed and no worker is inside it, so nobody calls it after its life.
    unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) }
}

impl Shared {
    /// Publishes a job and wakes as many sleepers as it can feed.
    fn open(&self, task: &Task<'_>, tasks: usize) {
        // SAFETY: the caller holds `turn`, the last job is closed and empty: nobody reads this.
        unsafe { *self.job.get() = Some(Job { task: forget_lifetime(task), tasks }) };
        self.next.store(0, Ordering::Relaxed);
        let epoch = self.state.load(Ordering::Relaxed) & !(EPOCH_ONE - 1);
        // SeqCst, as the load below: either a worker going to sleep sees the job, or we see the sleeper.
        self.state.store(epoch.wrapping_add(EPOCH_ONE) | OPEN, Ordering::SeqCst);
        let sleepers = self.sleepers.load(Ordering::SeqCst);
        if sleepers > 0 {
            // Whoever counted itself and has not yet gone to sleep holds this lock.
            drop(lock(&self.sleep));
            if tasks > sleepers {
                self.wake.notify_all();
            } else {
                (1..tasks).for_each(|_| self.wake.notify_one());
            }
        }
    }

    /// Ends the job: nobody joins any more; returns when all who joined have left.
    fn close(&self) {
        let empty = || self.state.load(Ordering::Acquire) & ACTIVE == 0;
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        if !spin(empty) {
            let mut done = lock(&self.done);
            self.state.fetch_or(CALLER_SLEEPS, Ordering::AcqRel);
            while !empty() {
                done = self.all_left.wait(done).unwrap_or_else(PoisonError::into_inner);
            }
        }
        // SAFETY: closed and empty, and we hold `turn`.
        unsafe { *self.job.get() = None };
    }

    /// Takes tasks until none is left, or until `stop`, and then nobody else takes one either. Returns how many were taken by all. A panic is kept
    /// for the caller and the next task is taken.
    fn take_tasks(&self, job: Job, stop: &dyn Fn() -> bool) -> usize {
        INSIDE.set(true);
        let mut reached = job.tasks;
        // One task at least: pauses however frequent do not stop the work.
        let mut first = true;
        loop {
            if !std::mem::take(&mut first) && stop() {
                reached = self.next.swap(ALL_TAKEN, Ordering::Relaxed).min(job.tasks);
                break;
            }
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= job.tasks {
                break;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (job.task)(i))) {
                lock(&self.panic).get_or_insert(panic);
            }
        }
        INSIDE.set(false);
        reached
    }

    /// A worker's life.
    fn work(&self) {
        let mut seen = 0;
        while !self.quit.load(Ordering::SeqCst) {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN == 0 || state >> 32 == seen {
                self.rest(seen);
                continue;
            }
            // Joining and closing both go through `state`, so a job is joined only while open.
            if self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            seen = state >> 32;
            // SAFETY: we are counted in `state`, so the caller neither returns nor writes `job`.
            if let Some(job) = unsafe { *self.job.get() } {
                self.take_tasks(job, &|| false);
            }
            let before = self.state.fetch_sub(1, Ordering::AcqRel);
            if before & ACTIVE == 1 && before & CALLER_SLEEPS != 0 {
                drop(lock(&self.done));
                self.all_left.notify_all();
            }
        }
    }

    /// Spins, then sleeps, until there is an open job later than `seen`, or the end.
    fn rest(&self, seen: u64) {
        let ready = |order| {
            let state = self.state.load(order);
            (state & OPEN != 0 && state >> 32 != seen) || self.quit.load(order)
        };
        if spin(|| ready(Ordering::Acquire)) {
            return;
        }
        let mut sleep = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !ready(Ordering::SeqCst) {
            sleep = self.wake.wait(sleep).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_for_any_count_of_threads() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 3, 17, 200] {
                for _ in 0..50 {
                    let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(tasks, &|i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} threads, {tasks} tasks");
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_tasks_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for _ in 0..20 {
            let count = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(10, &|i| {
                    count.fetch_add(1, Ordering::Relaxed);
                    assert!(i != 4, "task four");
                });
            }));
            assert!(result.is_err());
            assert_eq!(count.load(Ordering::Relaxed), 10);
        }
        pool.run(4, &|_| ());
    }

    #[test]
    fn nested_runs_and_several_callers_finish() {
        let pool = Pool::new(3);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..30 {
                        pool.run(5, &|_| {
                            pool.run(3, &|_| {
                                count.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 3 * 30 * 5 * 3);
    }

    #[test]
    fn pauses_between_tasks_lose_none_and_compute_on_the_same_pool() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            let (mut pauses, others) = (0, AtomicUsize::new(0));
            let counts: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            let mut between = || {
                pauses += 1;
                pool.run(7, &|_| {
                    others.fetch_add(1, Ordering::Relaxed);
                });
                Duration::ZERO
            };
            pause::pausing(Duration::ZERO, &mut between, || {
                for part in counts.chunks(25) {
                    pool.run(part.len(), &|i| {
                        part[i].fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} threads");
            assert!(pauses >= 4 && others.load(Ordering::Relaxed) == 7 * pauses, "{threads} threads, {pauses} pauses");
            pool.run(2, &|_| ());
            assert_eq!(others.load(Ordering::Relaxed), 7 * pauses, "no pause after the end");
        }
    }

    #[test]
    fn a_panic_in_a_pause_ends_the_computation_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let mut between = || -> Duration { panic!("in the pause") };
        let paused = AssertUnwindSafe(|| pause::pausing(Duration::ZERO, &mut between, || pool.run(9, &|_| ())));
        assert!(catch_unwind(paused).is_err());
        let count = AtomicUsize::new(0);
        pool.run(9, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 9);
    }

    #[test]
    fn sleeping_workers_and_a_sleeping_caller_wake() {
        let pool = Pool::new(2);
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(1));
            let workers = Mutex::new(Vec::new());
            // Both threads must take part: each task waits for the other.
            let both = std::sync::Barrier::new(2);
            pool.run(2, &|i| {
                both.wait();
                lock(&workers).push(std::thread::current().id());
                if i == 1 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let workers = lock(&workers);
            assert_ne!(workers[0], workers[1]);
        }
    }
}
