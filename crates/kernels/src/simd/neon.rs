//! Sixteen lanes as four registers of NEON, which every AArch64 has: as many vectors in 32 registers as AVX2 has in its 16.
//!
//! `fmax` and `fmin` hand NaN and zeros on otherwise than the other instruction sets: comparing and selecting does not.

use std::arch::aarch64::*;

use super::{LANES, Simd};

/// NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon;

/// Lanes of a register.
const REGISTER: usize = 4;

/// `all!(i => e)`: e for each of the four registers.
macro_rules! all {
    ($i:ident => $e:expr) => {
        std::array::from_fn(
            #[inline(always)]
            |$i| {
                // SAFETY: NEON and valid pointers by the trait's contract.
                unsafe { $e }
            },
        )
    };
}

/// bf16 of four lanes: round to nearest even, NaN quiet.
#[inline(always)]
unsafe fn round_bf16(v: float32x4_t) -> uint16x4_t {
    // SAFETY: NEON by the trait's contract.
    unsafe {
        let bits = vreinterpretq_u32_f32(v);
        let upper = vshrq_n_u32::<16>(bits);
        let odd = vandq_u32(upper, vdupq_n_u32(1));
        let rounded = vshrq_n_u32::<16>(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff))));
        let quiet = vorrq_u32(upper, vdupq_n_u32(0x40));
        vmovn_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet))
    }
}

/// a > b ? a : b
#[inline(always)]
unsafe fn greater(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: NEON by the trait's contract.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

impl Simd for Neon {
    type V = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        // SAFETY: NEON by the trait's contract.
        [unsafe { vdupq_n_f32(x) }; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        all!(i => vld1q_f32(p.add(i * REGISTER)))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: NEON and sixteen writable elements by the trait's contract.
            unsafe { vst1q_f32(p.add(i * REGISTER), v) }
        }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> Self::V {
        // SAFETY: n readable elements by the trait's contract, and n ≤ 16.
        unsafe {
            if n == LANES {
                return Self::load(p);
            }
            let mut all = [0.0; LANES];
            std::ptr::copy_nonoverlapping(p, all.as_mut_ptr(), n);
            Self::load(all.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: n writable elements by the trait's contract, and n ≤ 16.
        unsafe {
            if n == LANES {
                return Self::store(p, v);
            }
            let mut all = [0.0; LANES];
            Self::store(all.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(all.as_ptr(), p, n);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        all!(i => vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(p.add(i * REGISTER))))))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::V {
        // SAFETY: NEON and sixteen readable elements by the trait's contract.
        unsafe {
            let bytes = vld1q_s8(p);
            let [low, high] = [vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes))];
            [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)]
                .map(|quarter| vcvtq_f32_s32(vmovl_s16(quarter)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: NEON and sixteen writable elements by the trait's contract.
            unsafe { vst1_u16(p.add(i * REGISTER), round_bf16(v)) }
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        all!(i => vaddq_f32(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        all!(i => vsubq_f32(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        all!(i => vmulq_f32(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        all!(i => vdivq_f32(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn sqrt(a: Self::V) -> Self::V {
        all!(i => vsqrtq_f32(a[i]))
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        all!(i => greater(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        all!(i => vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        all!(i => vfmaq_f32(c[i], a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn neg(a: Self::V) -> Self::V {
        all!(i => vnegq_f32(a[i]))
    }
    #[inline(always)]
    unsafe fn first_n(v: Self::V, other: Self::V, n: usize) -> Self::V {
        const LANE: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        all!(i => {
            let lane = vld1q_s32(LANE.as_ptr().add(i * REGISTER));
            vbslq_f32(vcltq_s32(lane, vdupq_n_s32(n as i32)), v[i], other[i])
        })
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        // SAFETY: NEON by the trait's contract.
        [unsafe { vdupq_n_s32(x) }; 4]
    }
    #[inline(always)]
    unsafe fn bits(v: Self::V) -> Self::I {
        all!(i => vreinterpretq_s32_f32(v[i]))
    }
    #[inline(always)]
    unsafe fn from_bits(v: Self::I) -> Self::V {
        all!(i => vreinterpretq_f32_s32(v[i]))
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        all!(i => vaddq_s32(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I {
        all!(i => vsubq_s32(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn shl_i<const N: i32>(a: Self::I) -> Self::I {
        all!(i => vshlq_n_s32::<N>(a[i]))
    }
    #[inline(always)]
    unsafe fn shr_i<const N: i32>(a: Self::I) -> Self::I {
        all!(i => vshrq_n_s32::<N>(a[i]))
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        // SAFETY: NEON by the trait's contract.
        unsafe {
            let v = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
        }
    }
    #[inline(always)]
    unsafe fn maximum(v: Self::V) -> f32 {
        // SAFETY: NEON by the trait's contract.
        unsafe {
            let v = greater(greater(v[0], v[2]), greater(v[1], v[3]));
            let (low, high) = (vget_low_f32(v), vget_high_f32(v));
            let v = vbsl_f32(vcgt_f32(low, high), low, high);
            let (a, b) = (vget_lane_f32::<0>(v), vget_lane_f32::<1>(v));
            if a > b { a } else { b }
        }
    }
}
