//! Sixteen lanes as two registers of AVX2 with FMA.

use std::arch::x86_64::*;

use super::{LANES, Simd};

/// AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2;

/// −1 for the lanes that count: `MASKS[16 − n ..]` selects the first n of 16.
static MASKS: [i32; 32] = {
    let mut masks = [0; 32];
    let mut i = 0;
    while i < 16 {
        masks[i] = -1;
        i += 1;
    }
    masks
};

#[inline(always)]
unsafe fn mask(n: usize) -> (__m256i, __m256i) {
    debug_assert!(n <= 16, "at most sixteen lanes");
    // SAFETY: 16 − n + 15 < 32; AVX2 by the trait's contract.
    unsafe {
        let p = MASKS.as_ptr().add(16 - n);
        (_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast()))
    }
}

/// bf16 of eight lanes in the low halves of eight i32: round to nearest even, NaN quiet.
#[inline(always)]
unsafe fn round_bf16(v: __m256) -> __m256i {
    // SAFETY: AVX2 by the trait's contract.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let upper = _mm256_srli_epi32::<16>(bits);
        let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        _mm256_blendv_epi8(rounded, _mm256_or_si256(upper, _mm256_set1_epi32(0x40)), nan)
    }
}

/// A lane-wise operation on both halves.
macro_rules! both {
    ($op:ident, $($v:ident),+) => {
        // SAFETY: AVX2 and FMA by the trait's contract.
        unsafe { ($op($($v.0),+), $op($($v.1),+)) }
    };
}

impl Simd for Avx2 {
    type V = (__m256, __m256);
    type I = (__m256i, __m256i);
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        // SAFETY: AVX2 by the trait's contract.
        let v = unsafe { _mm256_set1_ps(x) };
        (v, v)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: AVX2 and sixteen readable elements by the trait's contract.
        unsafe { (_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: AVX2 and sixteen writable elements by the trait's contract.
        unsafe {
            _mm256_storeu_ps(p, v.0);
            _mm256_storeu_ps(p.add(8), v.1);
        }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> Self::V {
        // SAFETY: masked lanes are not read; the pointer of the second half is only used through its mask.
        unsafe {
            if n == LANES {
                return Self::load(p);
            }
            let m = mask(n);
            (_mm256_maskload_ps(p, m.0), _mm256_maskload_ps(p.wrapping_add(8), m.1))
        }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: masked lanes are not written; the pointer of the second half is only used through its mask.
        unsafe {
            // Masked stores are slow on some machines, and most blocks are full.
            if n == LANES {
                return Self::store(p, v);
            }
            let m = mask(n);
            _mm256_maskstore_ps(p, m.0, v.0);
            _mm256_maskstore_ps(p.wrapping_add(8), m.1, v.1);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        // SAFETY: AVX2 and sixteen readable elements by the trait's contract.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast()));
            (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)))
        }
    }
    /// Even lanes, then odd ones: two operations and one load instead of four and two.
    #[inline(always)]
    unsafe fn load_bf16_split(p: *const u16) -> Self::V {
        // SAFETY: AVX2 and sixteen readable elements by the trait's contract.
        unsafe {
            let pairs = _mm256_loadu_si256(p.cast());
            let odd = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32.cast_signed()));
            (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(odd))
        }
    }
    #[inline(always)]
    unsafe fn join_bf16(v: Self::V) -> Self::V {
        // SAFETY: AVX2 by the trait's contract.
        unsafe {
            let (low, high) = (_mm256_unpacklo_ps(v.0, v.1), _mm256_unpackhi_ps(v.0, v.1));
            (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::V {
        // SAFETY: AVX2 and sixteen readable elements by the trait's contract.
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.add(8).cast()));
            (_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V) {
        // SAFETY: AVX2 and sixteen writable elements by the trait's contract.
        unsafe {
            let packed = _mm256_packus_epi32(round_bf16(v.0), round_bf16(v.1));
            _mm256_storeu_si256(p.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    unsafe fn sqrt(a: Self::V) -> Self::V {
        both!(_mm256_sqrt_ps, a)
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        both!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        both!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    unsafe fn neg(a: Self::V) -> Self::V {
        // SAFETY: AVX2 by the trait's contract.
        let sign = unsafe { Self::splat(-0.0) };
        both!(_mm256_xor_ps, a, sign)
    }
    #[inline(always)]
    unsafe fn first_n(v: Self::V, other: Self::V, n: usize) -> Self::V {
        // SAFETY: AVX2 by the trait's contract.
        unsafe {
            let m = mask(n);
            (_mm256_blendv_ps(other.0, v.0, _mm256_castsi256_ps(m.0)), _mm256_blendv_ps(other.1, v.1, _mm256_castsi256_ps(m.1)))
        }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        // SAFETY: AVX2 by the trait's contract.
        let v = unsafe { _mm256_set1_epi32(x) };
        (v, v)
    }
    #[inline(always)]
    unsafe fn bits(v: Self::V) -> Self::I {
        both!(_mm256_castps_si256, v)
    }
    #[inline(always)]
    unsafe fn from_bits(v: Self::I) -> Self::V {
        both!(_mm256_castsi256_ps, v)
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_add_epi32, a, b)
    }
    #[inline(always)]
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_sub_epi32, a, b)
    }
    #[inline(always)]
    unsafe fn shl_i<const N: i32>(a: Self::I) -> Self::I {
        // SAFETY: AVX2 by the trait's contract.
        unsafe { (_mm256_slli_epi32::<N>(a.0), _mm256_slli_epi32::<N>(a.1)) }
    }
    #[inline(always)]
    unsafe fn shr_i<const N: i32>(a: Self::I) -> Self::I {
        // SAFETY: AVX2 by the trait's contract.
        unsafe { (_mm256_srai_epi32::<N>(a.0), _mm256_srai_epi32::<N>(a.1)) }
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        // SAFETY: AVX2 by the trait's contract.
        unsafe { sum_8(_mm256_add_ps(v.0, v.1)) }
    }
    #[inline(always)]
    unsafe fn maximum(v: Self::V) -> f32 {
        // SAFETY: AVX2 by the trait's contract.
        unsafe { maximum_8(_mm256_max_ps(v.0, v.1)) }
    }
}

#[inline(always)]
pub(super) unsafe fn sum_8(v: __m256) -> f32 {
    // SAFETY: AVX2 by the callers' contract.
    unsafe {
        let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
    }
}

#[inline(always)]
pub(super) unsafe fn maximum_8(v: __m256) -> f32 {
    // SAFETY: AVX2 by the callers' contract.
    unsafe {
        let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
    }
}
