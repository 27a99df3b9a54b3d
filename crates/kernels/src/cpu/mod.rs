//! The device: an instruction set chosen at run time and a pool of threads.
//! Does not know what the tasks compute.

pub mod limits;
pub mod memory;
mod pause;
mod pool;

use std::time::Duration;

use memory::Scratch;
use pool::Pool;

/// Instruction set that the vector code uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust; the readable reference, the same bits as the others (but AMX in bf16).
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL with BF16 and VNNI.
    Avx512,
    /// AVX-512 as above, and AMX tiles of bf16.
    Amx,
    /// NEON, which every AArch64 has.
    Neon,
    /// NEON with the dot product of bytes: Armv8.4, and most of 8.2.
    NeonDot,
}

impl Isa {
    /// The best that this machine has.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bf16")
                && is_x86_feature_detected!("avx512vnni")
            {
                return if amx() { Isa::Amx } else { Isa::Avx512 };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        return if std::arch::is_aarch64_feature_detected!("dotprod") { Isa::NeonDot } else { Isa::Neon };
        #[cfg(not(target_arch = "aarch64"))]
        Isa::Portable
    }
}

/// Whether the matrix unit is there, and this process may use it (on Linux it must ask).
#[cfg(target_arch = "x86_64")]
fn amx() -> bool {
    /// `arch_prctl` to ask for a part of the register state, and the tiles' data among those.
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    /// Leaf 7, EDX: AMX-BF16, AMX-TILE.
    const FEATURES: u32 = 1 << 22 | 1 << 24;
    let has = std::arch::x86_64::__cpuid(0).eax >= 7 && std::arch::x86_64::__cpuid_count(7, 0).edx & FEATURES == FEATURES;
    // SAFETY: asks the system for a permission and changes no memory. It holds for the process, also for threads that exist.
    has && cfg!(target_os = "linux") && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) } == 0
}

/// One CPU as a compute device. Cheap to share (`&Cpu`); dropping it ends the threads.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    pool: Pool,
    scratch: Scratch,
}

impl Cpu {
    /// `threads` ≥ 1 counts the calling thread. `isa` None takes the best; one that the machine lacks falls back to the best.
    pub fn new(threads: usize, isa: Option<Isa>) -> Cpu {
        let best = Isa::detect();
        let isa = match (isa, best) {
            (Some(Isa::Avx512), Isa::Amx | Isa::Avx512) => Isa::Avx512,
            (Some(Isa::Avx2), Isa::Amx | Isa::Avx512 | Isa::Avx2) => Isa::Avx2,
            (Some(Isa::Neon), Isa::Neon | Isa::NeonDot) => Isa::Neon,
            (Some(Isa::Portable), _) => Isa::Portable,
            _ => best,
        };
        Cpu { isa, pool: Pool::new(threads), scratch: Scratch::default() }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that work, the caller included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Buffers that ops borrow.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Runs `task(0..tasks)`, each once, handed out by an atomic counter; returns when all are done. A task may call `run` (it is then
    /// done inline), and so may several threads (one after the other).
    ///
    /// # Panics
    /// With the first panic of a task, after all tasks are done.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.pool.run(tasks, task);
    }

    /// Runs `work` on this thread. Whenever its time is over, it pauses before the next task of an op, and `between` computes; that says how much time
    /// `work` has then. First it has `slice`.
    ///
    /// # Panics
    /// With the panic of either.
    pub fn pausing<R>(&self, slice: Duration, between: &mut dyn FnMut() -> Duration, work: impl FnOnce() -> R) -> R {
        pause::pausing(slice, between, work)
    }
}
