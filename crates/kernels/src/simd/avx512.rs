//! Sixteen lanes as one register of AVX-512.

use std::arch::x86_64::*;

use super::Simd;
use super::avx2::{maximum_8, sum_8};

/// AVX-512 F, BW, DQ, VL.
#[derive(Clone, Copy, Debug)]
pub struct Avx512;

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    debug_assert!(n <= 16, "at most sixteen lanes");
    ((1u32 << n) - 1) as __mmask16
}

#[inline(always)]
unsafe fn halves(v: __m512) -> (__m256, __m256) {
    // SAFETY: AVX-512 by the trait's contract.
    unsafe { (_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)) }
}

/// One intrinsic, whose instruction set the trait's contract promises.
macro_rules! one {
    ($e:expr) => {
        // SAFETY: AVX-512 and valid pointers by the trait's contract.
        unsafe { $e }
    };
}

impl Simd for Avx512 {
    type V = __m512;
    type I = __m512i;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        one!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        one!(_mm512_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        one!(_mm512_storeu_ps(p, v))
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> Self::V {
        one!(_mm512_maskz_loadu_ps(mask(n), p))
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: Self::V, n: usize) {
        one!(_mm512_mask_storeu_ps(p, mask(n), v))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        one!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::V {
        one!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))))
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V) {
        // The instruction of AVX512_BF16 flushes denormals, so the rounding is done in integers.
        // SAFETY: AVX-512 and sixteen writable elements by the trait's contract.
        unsafe {
            let bits = _mm512_castps_si512(v);
            let upper = _mm512_srli_epi32::<16>(bits);
            let odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
            let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
            let result = _mm512_mask_blend_epi32(nan, rounded, quiet);
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(result));
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        one!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        one!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        one!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        one!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    unsafe fn sqrt(a: Self::V) -> Self::V {
        one!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        one!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        one!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        one!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    unsafe fn neg(a: Self::V) -> Self::V {
        one!(_mm512_xor_ps(a, _mm512_set1_ps(-0.0)))
    }
    #[inline(always)]
    unsafe fn first_n(v: Self::V, other: Self::V, n: usize) -> Self::V {
        one!(_mm512_mask_blend_ps(mask(n), other, v))
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        one!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    unsafe fn bits(v: Self::V) -> Self::I {
        one!(_mm512_castps_si512(v))
    }
    #[inline(always)]
    unsafe fn from_bits(v: Self::I) -> Self::V {
        one!(_mm512_castsi512_ps(v))
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        one!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I {
        one!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    unsafe fn shl_i<const N: i32>(a: Self::I) -> Self::I {
        one!(_mm512_sllv_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    unsafe fn shr_i<const N: i32>(a: Self::I) -> Self::I {
        one!(_mm512_srav_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        // SAFETY: AVX-512 by the trait's contract.
        unsafe {
            let (low, high) = halves(v);
            sum_8(_mm256_add_ps(low, high))
        }
    }
    #[inline(always)]
    unsafe fn maximum(v: Self::V) -> f32 {
        // SAFETY: AVX-512 by the trait's contract.
        unsafe {
            let (low, high) = halves(v);
            maximum_8(_mm256_max_ps(low, high))
        }
    }
}
