//! The readable reference: sixteen lanes as an array. Slow where the machine has no fused multiply-add.

use super::{LANES, Simd};

/// Plain Rust, any machine.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

type V = [f32; LANES];
type I = [i32; LANES];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn fold(v: V, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut v = v;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            v[i] = f(v[i], v[i + half]);
        }
    }
    v[0]
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Simd for Portable {
    type V = V;
    type I = I;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        // SAFETY: sixteen readable elements, by the trait's contract.
        unsafe { p.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        // SAFETY: sixteen writable elements, by the trait's contract.
        unsafe { p.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> V {
        // SAFETY: n readable elements, by the trait's contract.
        std::array::from_fn(|i| if i < n { unsafe { p.add(i).read_unaligned() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: V, n: usize) {
        for (i, x) in v.into_iter().enumerate().take(n) {
            // SAFETY: n writable elements, by the trait's contract.
            unsafe { p.add(i).write_unaligned(x) }
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> V {
        // SAFETY: sixteen readable elements, by the trait's contract.
        std::array::from_fn(|i| f32::from_bits(u32::from(unsafe { p.add(i).read_unaligned() }) << 16))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> V {
        // SAFETY: sixteen readable elements, by the trait's contract.
        unsafe { p.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: V) {
        for (i, x) in v.into_iter().enumerate() {
            // SAFETY: sixteen writable elements, by the trait's contract.
            unsafe { p.add(i).write_unaligned(half::bf16::from_f32(x).to_bits()) }
        }
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn sqrt(a: V) -> V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        zip(a, b, greater)
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn neg(a: V) -> V {
        a.map(|a| -a)
    }
    #[inline(always)]
    unsafe fn first_n(v: V, other: V, n: usize) -> V {
        std::array::from_fn(|i| if i < n { v[i] } else { other[i] })
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> I {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn bits(v: V) -> I {
        v.map(|x| x.to_bits().cast_signed())
    }
    #[inline(always)]
    unsafe fn from_bits(v: I) -> V {
        v.map(|x| f32::from_bits(x.cast_unsigned()))
    }
    #[inline(always)]
    unsafe fn add_i(a: I, b: I) -> I {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn sub_i(a: I, b: I) -> I {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    unsafe fn shl_i<const N: i32>(a: I) -> I {
        a.map(|a| a << N)
    }
    #[inline(always)]
    unsafe fn shr_i<const N: i32>(a: I) -> I {
        a.map(|a| a >> N)
    }
    #[inline(always)]
    unsafe fn sum(v: V) -> f32 {
        fold(v, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn maximum(v: V) -> f32 {
        fold(v, greater)
    }
}
