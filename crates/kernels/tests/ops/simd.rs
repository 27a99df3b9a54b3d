//! The vector functions on the instruction sets that this machine has.

use tiger_kernels::simd::{self, LANES, Portable, Simd};

use crate::support::{Random, assert_same};

fn map<S: Simd>(x: &[f32], f: unsafe fn(S::V) -> S::V) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for (x, y) in x.chunks(LANES).zip(out.chunks_mut(LANES)) {
        // SAFETY: the callers checked the instruction set; whole chunks.
        unsafe { S::store_n(y.as_mut_ptr(), f(S::load_n(x.as_ptr(), x.len())), x.len()) }
    }
    out
}

fn samples() -> Vec<f32> {
    let mut random = Random(7);
    let mut x: Vec<f32> = (0..4000).map(|i| (i as f32 - 2000.0) * 0.06).collect();
    x.extend((0..4000).map(|_| random.unit() * 10.0));
    x.extend([
        0.0,
        -0.0,
        f32::NEG_INFINITY,
        f32::MIN,
        -104.1,
        -103.5,
        -87.4,
        88.7,
        88.8,
        1e-30,
        -1e-30,
        f32::INFINITY,
        f32::MAX,
        1e4,
        -1e4,
    ]);
    x
}

/// Units in the last place between a result and the exact value.
fn ulps(got: f32, exact: f64) -> f64 {
    let spacing = (got.abs().max(f32::MIN_POSITIVE).to_bits() + 1, got.abs().max(f32::MIN_POSITIVE));
    (f64::from(got) - exact).abs() / f64::from(f32::from_bits(spacing.0) - spacing.1)
}

#[test]
fn exp_is_within_two_units() {
    for (x, y) in samples().iter().zip(map::<Portable>(&samples(), simd::exp::<Portable>)) {
        let exact = f64::from(*x).exp();
        if exact > f64::from(f32::MAX) * 1.000_001 {
            assert_eq!(y, f32::INFINITY, "exp({x})");
        } else if *x == f32::NEG_INFINITY || *x < -104.0 {
            assert_eq!(y, 0.0, "exp({x})");
        } else {
            assert!(ulps(y, exact) <= 2.0, "exp({x}) = {y:e}, exactly {exact:e}");
        }
    }
    assert!(map::<Portable>(&[f32::NAN], simd::exp::<Portable>)[0].is_nan());
    assert!(map::<Portable>(&[f32::NAN], simd::silu::<Portable>)[0].is_nan());
}

#[test]
fn silu_and_sigmoid_are_close_and_finite() {
    let x = samples();
    let (silu, sigmoid) = (map::<Portable>(&x, simd::silu::<Portable>), map::<Portable>(&x, simd::sigmoid::<Portable>));
    for i in 0..x.len() {
        let exact = 1.0 / (1.0 + (-f64::from(x[i])).exp());
        assert!((f64::from(sigmoid[i]) - exact).abs() < 2e-7, "sigmoid({})", x[i]);
        if x[i].is_finite() {
            assert!((f64::from(silu[i]) - f64::from(x[i]) * exact).abs() <= 3e-7 * f64::from(x[i]).abs(), "silu({}) = {}", x[i], silu[i]);
        }
    }
    assert_eq!(map::<Portable>(&[f32::NEG_INFINITY, f32::INFINITY], simd::silu::<Portable>), [0.0, f32::INFINITY]);
}

#[test]
fn ln_is_exact_to_f64_rounding() {
    for x in [1e-320, 1e-40, 0.3, 0.5, 0.707, 0.708, 1.0, 1.000_001, 1.5, 2.0, 3.0, 128_256.0, 1e30, 1e300] {
        assert!((simd::ln(x) - f64::ln(x)).abs() <= 2e-15 * (1.0 + f64::ln(x).abs()), "ln({x})");
    }
    assert_eq!((simd::ln(0.0), simd::ln(f64::INFINITY)), (f64::NEG_INFINITY, f64::INFINITY));
    assert!(simd::ln(-1.0).is_nan() && simd::ln(f64::NAN).is_nan());
}

/// Everything that the portable text does, `S` does with the same bits.
fn same_as_portable<S: Simd>() {
    let x = samples();
    for (name, portable, other) in [
        ("exp", map::<Portable>(&x, simd::exp::<Portable>), map::<S>(&x, simd::exp::<S>)),
        ("sigmoid", map::<Portable>(&x, simd::sigmoid::<Portable>), map::<S>(&x, simd::sigmoid::<S>)),
        ("silu", map::<Portable>(&x, simd::silu::<Portable>), map::<S>(&x, simd::silu::<S>)),
    ] {
        assert_same(&other, &portable, name);
    }
    let mut tricky = x.clone();
    tricky.extend([
        f32::NAN,
        f32::from_bits(0x7fff_ffff),
        f32::from_bits(0x7f80_0001),
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
    ]);
    tricky.extend([f32::MAX, f32::from_bits(1), f32::from_bits(0x0080_7fff)]);
    // Zeros of both signs and NaN where `max` and `min` are tried against such.
    tricky.splice(0..0, [1.0, -0.0, 0.0, f32::NAN]);
    tricky.resize(tricky.len().next_multiple_of(LANES), 1.0);
    for x in tricky.chunks_exact(LANES) {
        let (mut a, mut b) = ([0u16; LANES], [0u16; LANES]);
        // SAFETY: the caller checked the instruction set; whole chunks.
        unsafe {
            Portable::store_bf16(a.as_mut_ptr(), Portable::load(x.as_ptr()));
            S::store_bf16(b.as_mut_ptr(), S::load(x.as_ptr()));
            assert_eq!(a, b, "bf16 of {x:?}");
            let (mut wide_a, mut wide_b) = ([0.0; LANES], [0.0; LANES]);
            Portable::store(wide_a.as_mut_ptr(), Portable::load_bf16(a.as_ptr()));
            S::store(wide_b.as_mut_ptr(), S::load_bf16(b.as_ptr()));
            assert_same(&wide_b, &wide_a, "widened bf16");
            let reduce = [S::sum(S::load(x.as_ptr())), S::maximum(S::load(x.as_ptr()))];
            assert_same(
                &reduce,
                &[Portable::sum(Portable::load(x.as_ptr())), Portable::maximum(Portable::load(x.as_ptr()))],
                "sum and maximum",
            );
            let mut y: [f32; LANES] = std::array::from_fn(|i| x[LANES - 1 - i]);
            y[..4].copy_from_slice(&[f32::NAN, 0.0, -0.0, x[3]]);
            let (mut a, mut b) = ([[0.0; LANES]; 2], [[0.0; LANES]; 2]);
            Portable::store(a[0].as_mut_ptr(), Portable::max(Portable::load(x.as_ptr()), Portable::load(y.as_ptr())));
            Portable::store(a[1].as_mut_ptr(), Portable::min(Portable::load(x.as_ptr()), Portable::load(y.as_ptr())));
            S::store(b[0].as_mut_ptr(), S::max(S::load(x.as_ptr()), S::load(y.as_ptr())));
            S::store(b[1].as_mut_ptr(), S::min(S::load(x.as_ptr()), S::load(y.as_ptr())));
            assert_same(b.as_flattened(), a.as_flattened(), "max and min");
            for n in 0..=LANES {
                let (mut a, mut b) = ([9.0; LANES], [9.0; LANES]);
                Portable::store_n(a.as_mut_ptr(), Portable::first_n(Portable::load_n(x.as_ptr(), n), Portable::splat(5.0), n / 2), n);
                S::store_n(b.as_mut_ptr(), S::first_n(S::load_n(x.as_ptr(), n), S::splat(5.0), n / 2), n);
                assert_same(&b, &a, "partial lanes");
            }
        }
    }
}

#[test]
fn instruction_sets_agree_bitwise() {
    #[cfg(target_arch = "x86_64")]
    {
        use tiger_kernels::Isa;
        if crate::support::isas().contains(&Isa::Avx2) {
            same_as_portable::<simd::Avx2>();
        }
        if crate::support::isas().contains(&Isa::Avx512) {
            same_as_portable::<simd::Avx512>();
        }
    }
    #[cfg(target_arch = "aarch64")]
    same_as_portable::<simd::Neon>();
}
