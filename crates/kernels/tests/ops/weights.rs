//! Sums of weights against f64, the same on every instruction set.

use tiger_kernels::ops::weights::{WEIGHT_BLOCK, weight_sums};

use crate::support::{Random, assert_close, same_everywhere};

#[test]
fn sums_match_f64_and_masked_blocks_are_zero() {
    let mut random = Random(50);
    for (v, scale) in [(1, 1.0), (16, 0.5), (257, 1.0), (1000, 3.0), (2048, 10.0)] {
        let mut row = random.scaled(v, 8.0);
        // What a constraint forbids, and a whole block of it; and weights too small to count.
        row.iter_mut().step_by(3).for_each(|z| *z = f32::NEG_INFINITY);
        row.iter_mut().skip(WEIGHT_BLOCK).take(WEIGHT_BLOCK).for_each(|z| *z = f32::NEG_INFINITY);
        let maximum = row.iter().copied().fold(-8.0, f32::max);
        row.iter_mut().skip(2 * WEIGHT_BLOCK).take(WEIGHT_BLOCK).for_each(|z| *z = maximum - 95.0 / scale);
        let got = same_everywhere(|cpu| {
            let mut sums = vec![f32::NAN; v.div_ceil(WEIGHT_BLOCK)];
            weight_sums(cpu.isa(), &row, maximum, scale, &mut sums);
            sums
        });
        let exponent = |z: &f32| (f64::from(*z) - f64::from(maximum)) * f64::from(scale);
        let exact: Vec<f64> =
            row.chunks(WEIGHT_BLOCK).map(|block| block.iter().map(exponent).filter(|x| *x > -87.0).map(f64::exp).sum()).collect();
        assert_close(&got, &exact, 2e-6, "sums");
        assert!(got.iter().skip(1).take(2).all(|sum| *sum == 0.0), "what is masked or vanishes counts nothing: {got:?}");
    }
}
