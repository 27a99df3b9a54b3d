//! What this machine can do at best, measured and not looked up: how fast memory is read, and how fast registers multiply.
//! A kernel's speed is given as a share of these. Knows no kernel.

use crate::cpu::memory::HugeBuffer;
use crate::ops::linear::Precision;
use crate::{Cpu, Isa};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bytes read per pass: several times the last level cache.
const READ_BYTES: usize = 256 << 20;
/// Bytes of a task: a few huge pages would make the end ragged, a few kilobytes would measure the pool.
const READ_TASK_BYTES: usize = 1 << 20;
/// Passes, of which the fastest counts.
const PASSES: usize = 3;
/// Tasks per thread of a pass of arithmetic, and multiply-adds per chain in a task: about a millisecond each.
const TASKS_PER_THREAD: usize = 6;
const CHAIN_STEPS: usize = 400_000;
/// Independent chains: latency times units of any core, in as many registers as AVX2 leaves, or NEON.
const CHAINS: usize = if cfg!(target_arch = "aarch64") { 24 } else { 12 };

/// Memory that `read_bandwidth_of` reads.
pub struct ReadBuffer(HugeBuffer);

impl ReadBuffer {
    /// A buffer several times the caches, filled by all threads.
    pub fn new(cpu: &Cpu) -> ReadBuffer {
        let buffer = HugeBuffer::new(READ_BYTES);
        cpu.run(READ_BYTES / READ_TASK_BYTES, &|task| {
            // SAFETY: each task has its own part of the buffer.
            unsafe { buffer.as_ptr().add(task * READ_TASK_BYTES).write_bytes(task as u8, READ_TASK_BYTES) };
        });
        ReadBuffer(buffer)
    }
}

impl std::fmt::Debug for ReadBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadBuffer")
    }
}

/// How fast all threads together read memory, in GB/s (10⁹ bytes). Takes a quarter of a second and 256 MiB.
pub fn read_bandwidth(cpu: &Cpu) -> f64 {
    let buffer = ReadBuffer::new(cpu);
    (0..PASSES).map(|_| read_bandwidth_of(cpu, &buffer)).fold(0.0, f64::max)
}

/// One pass over the buffer, in GB/s.
pub fn read_bandwidth_of(cpu: &Cpu, buffer: &ReadBuffer) -> f64 {
    let total = AtomicU64::new(0);
    let begin = Instant::now();
    cpu.run(READ_BYTES / READ_TASK_BYTES, &|task| {
        // SAFETY: filled by `new`, aligned to a cache line.
        let words = unsafe { std::slice::from_raw_parts(buffer.0.as_ptr().add(task * READ_TASK_BYTES).cast::<u64>(), READ_TASK_BYTES / 8) };
        total.fetch_xor(xor(cpu.isa(), words), Ordering::Relaxed);
    });
    black_box(total.into_inner());
    READ_BYTES as f64 / 1e9 / begin.elapsed().as_secs_f64()
}

/// How fast all threads together multiply and add in registers, in GFLOP/s (a multiply-add is two), with the instructions that the
/// kernels for weights of this precision use. Takes some tens of milliseconds.
pub fn peak_flops(cpu: &Cpu, precision: Precision) -> f64 {
    (0..PASSES).map(|_| peak_flops_once(cpu, precision)).fold(0.0, f64::max)
}

/// One pass, for comparing with what is measured right beside it.
pub fn peak_flops_once(cpu: &Cpu, precision: Precision) -> f64 {
    let tasks = TASKS_PER_THREAD * cpu.threads();
    let done = AtomicU64::new(0);
    let begin = Instant::now();
    cpu.run(tasks, &|_| {
        done.fetch_add(chains(cpu.isa(), precision), Ordering::Relaxed);
    });
    2.0 * done.into_inner() as f64 / 1e9 / begin.elapsed().as_secs_f64()
}

fn xor(isa: Isa, words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Portable {
        // SAFETY: both other instruction sets have AVX2.
        return unsafe { x86::xor(words) };
    }
    let _ = isa;
    xor_with(words)
}

#[inline(always)]
fn xor_with(words: &[u64]) -> u64 {
    let mut sums = [0; 32];
    for words in words.as_chunks::<32>().0 {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum ^= word;
        }
    }
    sums.iter().fold(0, |a, b| a ^ b)
}

/// Runs the chains of one task; returns the multiply-adds done.
fn chains(isa: Isa, precision: Precision) -> u64 {
    #[cfg(target_arch = "x86_64")]
    match (isa, precision) {
        // SAFETY: `Cpu` has checked the instruction set.
        (Isa::Avx512 | Isa::Amx, Precision::F32) => return unsafe { x86::f32_512() },
        // SAFETY: as above.
        (Isa::Amx, Precision::Bf16) => return unsafe { x86::bf16_tiles() },
        // SAFETY: as above.
        (Isa::Avx512, Precision::Bf16) => return unsafe { x86::bf16_512() },
        // SAFETY: as above.
        (Isa::Avx512 | Isa::Amx, Precision::Int8 | Precision::Int4) => return unsafe { x86::int8_512() },
        // SAFETY: as above.
        (Isa::Avx2, Precision::F32 | Precision::Bf16) => return unsafe { x86::f32_256() },
        // SAFETY: as above.
        (Isa::Avx2, Precision::Int8) => return unsafe { x86::int8_256() },
        // SAFETY: as above.
        (Isa::Avx2, Precision::Int4) => return unsafe { x86::int4_256() },
        (Isa::Portable | Isa::Neon | Isa::NeonDot, _) => (),
    }
    #[cfg(target_arch = "aarch64")]
    match (isa, precision) {
        // SAFETY: `Cpu` has checked the instruction set.
        (Isa::Neon | Isa::NeonDot, Precision::F32 | Precision::Bf16) => return unsafe { neon::f32() },
        // SAFETY: as above.
        (Isa::Neon, Precision::Int8 | Precision::Int4) => return unsafe { neon::bytes() },
        // SAFETY: as above.
        (Isa::NeonDot, Precision::Int8 | Precision::Int4) => return unsafe { neon::bytes_dot() },
        (Isa::Portable | Isa::Avx2 | Isa::Avx512 | Isa::Amx, _) => (),
    }
    let _ = (isa, precision);
    const LANES: usize = 4;
    let mut sums = [[0.0f32; LANES]; CHAINS];
    let (a, b) = black_box((0.5f32, 1.0f32));
    let steps = CHAIN_STEPS / 64;
    for _ in 0..steps {
        for sum in sums.as_flattened_mut() {
            *sum = sum.mul_add(a, b);
        }
    }
    black_box(sums);
    (steps * CHAINS * LANES) as u64
}

/// A function that runs `CHAINS` chains of `$step` and counts `$per_step` multiply-adds for each.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! chains {
    ($name:ident, $features:literal, $zero:expr, $operand:expr, $per_step:literal, $step:expr) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name() -> u64 {
            let mut sums = [$zero; CHAINS];
            let operand = black_box($operand);
            for _ in 0..CHAIN_STEPS {
                for sum in &mut sums {
                    *sum = $step(*sum, operand);
                }
            }
            black_box(sums);
            (CHAIN_STEPS * CHAINS * $per_step) as u64
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAIN_STEPS, CHAINS, black_box, xor_with};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn xor(words: &[u64]) -> u64 {
        xor_with(words)
    }

    chains!(f32_256, "avx2,fma", _mm256_setzero_ps(), _mm256_set1_ps(0.5), 8, |s, a| _mm256_fmadd_ps(s, a, a));
    // Two exact 16-bit products and sums per 32-bit lane and instruction: 4 values of k are two of them and two additions.
    chains!(int8_256, "avx2,fma", _mm256_setzero_si256(), _mm256_set1_epi32(0x0003_0005), 16, |s, a| {
        _mm256_add_epi32(s, _mm256_madd_epi16(s, a))
    });
    // 32 exact 8-bit products, summed in pairs to 16 bits, and a sum of those.
    chains!(int4_256, "avx2,fma", _mm256_setzero_si256(), _mm256_set1_epi32(0x0103_0105), 32, |s, a| {
        _mm256_add_epi16(s, _mm256_maddubs_epi16(s, a))
    });
    chains!(f32_512, "avx512f", _mm512_setzero_ps(), _mm512_set1_ps(0.5), 16, |s, a| _mm512_fmadd_ps(s, a, a));
    chains!(bf16_512, "avx512f,avx512bf16", _mm512_setzero_ps(), _mm512_set1_epi32(0x3f00_3f00), 32, |s, a: __m512i| {
        // SAFETY: both types are the same 64 bytes.
        let a = unsafe { std::mem::transmute::<__m512i, __m512bh>(a) };
        _mm512_dpbf16_ps(s, a, a)
    });
    chains!(int8_512, "avx512f,avx512vnni", _mm512_setzero_si512(), _mm512_set1_epi32(0x0102_0304), 64, |s, a| {
        _mm512_dpbusd_epi32(s, a, a)
    });

    /// Four chains on whole tiles: 16 rows by 16 columns by 32 multiply-adds each.
    pub(super) unsafe fn bf16_tiles() -> u64 {
        /// Palette 1; eight tiles of 16 rows of 64 bytes.
        #[repr(C, align(64))]
        struct Shapes([u8; 16], [u16; 16], [u8; 16]);
        let tiles = std::array::from_fn(|i| if i < 8 { 64 } else { 0 });
        let shapes = Shapes(std::array::from_fn(|i| u8::from(i == 0)), tiles, tiles.map(|bytes| (bytes / 4) as u8));
        let steps = CHAIN_STEPS / 8;
        // SAFETY: touches nothing but tiles, which it configures and gives back.
        unsafe {
            std::arch::asm!(
                "ldtilecfg [{shapes}]",
                "20:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {n}",
                "jnz 20b",
                "tilerelease",
                shapes = in(reg) &shapes,
                n = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                out("tmm7") _,
                options(nostack),
            );
        }
        (steps * 4 * 16 * 16 * 32) as u64
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{CHAIN_STEPS, CHAINS, black_box};
    use crate::ops::linear::sdot;
    use std::arch::aarch64::*;

    chains!(f32, "neon", vdupq_n_f32(0.0), vdupq_n_f32(0.5), 4, |s, a| vfmaq_f32(a, s, a));
    // Products of 16 bits, summed in pairs, and in pairs again to 32 bits. The sum is a factor only so that no product is constant.
    chains!(bytes, "neon", vdupq_n_s32(0), vdupq_n_s8(3), 16, |s, a| {
        let v = vreinterpretq_s8_s32(s);
        vpadalq_s16(s, vpaddq_s16(vmull_s8(vget_low_s8(v), vget_low_s8(a)), vmull_high_s8(v, a)))
    });
    chains!(bytes_dot, "neon,dotprod", vdupq_n_s32(0), vdupq_n_s8(3), 16, |s, a| sdot::<0>(s, a, vget_low_s8(a)));
}
