//! Vectors of 16 f32 lanes on every instruction set, so that one kernel text gives the same bits everywhere.
//! Knows no op and no thread.
//!
//! A kernel is a generic `#[inline(always)] unsafe fn kernel<S: Simd>(…)`; [`dispatch!`](crate::simd::dispatch) makes the function that
//! picks the instruction set. Sums run in a fixed tree over the 16 lanes, products are fused where the text says `fma`, nothing else.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
pub(crate) mod tile;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use math::{exp, ln, log_sum_exp, sigmoid, silu};
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use portable::Portable;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Sixteen f32 lanes and the operations that kernels are made of.
///
/// # Safety
/// Every method may use the implementor's instruction set: call only on machines that have it, from a function compiled for it.
/// Pointers must be valid for the lanes named.
#[expect(clippy::missing_safety_doc, reason = "the contract of all methods stands at the trait")]
pub trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32.
    type V: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Whether a vector is one register of 32, so that taller tiles fit.
    const WIDE: bool;

    /// x in every lane.
    unsafe fn splat(x: f32) -> Self::V;
    /// Sixteen elements, unaligned.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Sixteen elements, unaligned.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// The first `n` ≤ 16 elements; 0 in the other lanes, whose memory is not touched.
    unsafe fn load_n(p: *const f32, n: usize) -> Self::V;
    /// The first `n` ≤ 16 lanes; other memory is not touched.
    unsafe fn store_n(p: *mut f32, v: Self::V, n: usize);
    /// Sixteen bf16 (as bits), widened exactly.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// [`Simd::load_bf16`] with the lanes in the order that is cheapest to make; [`Simd::join_bf16`] puts them right.
    #[inline(always)]
    unsafe fn load_bf16_split(p: *const u16) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { Self::load_bf16(p) }
    }
    /// Lanes of [`Simd::load_bf16_split`] in the order of memory.
    #[inline(always)]
    unsafe fn join_bf16(v: Self::V) -> Self::V {
        v
    }
    /// Sixteen i8, exactly.
    unsafe fn load_i8(p: *const i8) -> Self::V;
    /// Rounded to nearest even; NaN stays NaN.
    unsafe fn store_bf16(p: *mut u16, v: Self::V);
    /// a + b
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// a − b
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// a · b
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// Square root, correctly rounded.
    unsafe fn sqrt(a: Self::V) -> Self::V;
    /// a > b ? a : b (b when either is NaN)
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// a < b ? a : b (b when either is NaN)
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, rounded once
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// −a
    unsafe fn neg(a: Self::V) -> Self::V;
    /// Lane i is v's for i < n, else that of `other`.
    unsafe fn first_n(v: Self::V, other: Self::V, n: usize) -> Self::V;
    /// i32 in every lane.
    unsafe fn splat_i(x: i32) -> Self::I;
    /// The lanes' bits.
    unsafe fn bits(v: Self::V) -> Self::I;
    /// The inverse of [`Simd::bits`].
    unsafe fn from_bits(v: Self::I) -> Self::V;
    /// Wrapping sum.
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// Wrapping difference.
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I;
    /// Bits moved up.
    unsafe fn shl_i<const N: i32>(a: Self::I) -> Self::I;
    /// Arithmetic shift down.
    unsafe fn shr_i<const N: i32>(a: Self::I) -> Self::I;
    /// Sum of the lanes: i + (i+8), then + 4, + 2, + 1.
    unsafe fn sum(v: Self::V) -> f32;
    /// Largest lane, in the tree of [`Simd::sum`].
    unsafe fn maximum(v: Self::V) -> f32;

    /// 0 in every lane.
    #[inline(always)]
    unsafe fn zero() -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { Self::splat(0.0) }
    }
}

/// Makes `fn name(isa: Isa, …)` that runs the generic kernel `name::kernel::<S>` compiled for the chosen instruction set.
///
/// `dispatch!(pub(crate) fn add_row(x: &mut [f32], d: &[f32]) = add_row_kernel);`
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident$(<$g:ident: $bound:path>)?($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident) => {
        $(#[$meta])*
        $vis fn $name$(<$g: $bound>)?(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2$(<$g: $bound>)?($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function is compiled for the instruction set.
                unsafe { $kernel::<$crate::simd::Avx2 $(, $g)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn avx512$(<$g: $bound>)?($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function is compiled for the instruction set.
                unsafe { $kernel::<$crate::simd::Avx512 $(, $g)?>($($arg),*) }
            }
            // SAFETY: `Cpu` only carries an instruction set that the machine has.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::Isa::Avx512 | $crate::Isa::Amx => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::Isa::Avx2 => avx2($($arg),*),
                    // Part of what the whole crate is compiled for.
                    #[cfg(target_arch = "aarch64")]
                    $crate::Isa::Neon | $crate::Isa::NeonDot => $kernel::<$crate::simd::Neon $(, $g)?>($($arg),*),
                    _ => $kernel::<$crate::simd::Portable $(, $g)?>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use dispatch;

/// Fetches a cache line into L2; any address will do.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that faults on no address; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) at.addr(), options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}
