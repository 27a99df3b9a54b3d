//! The optimizer's step against f64, the norm and the overflow check.

use tiger_kernels::ops::adamw::{AdamW, Moments, adamw, all_finite, sq_norm};

use crate::support::{Random, assert_close, fast, same_everywhere, wide};

#[test]
fn three_steps_match_f64() {
    let mut random = Random(5);
    for n in [1, 16, 100, 70_001] {
        let o = |step| AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, step };
        let (p0, gradients) = (random.vec(n), [random.vec(n), random.vec(n), random.vec(n)]);
        let all = same_everywhere(|cpu| {
            let (mut p, mut m, mut v) = (p0.clone(), vec![0.0; n], vec![0.0; n]);
            for (i, g) in gradients.iter().enumerate() {
                adamw(cpu, Moments { p: &mut p, m: &mut m, v: &mut v }, g, 0.5, &o(i as u64 + 1));
            }
            [p, m, v].concat()
        });
        let (mut p, mut m, mut v) = (wide(&p0), vec![0.0; n], vec![0.0; n]);
        let (lr, b1, b2) = (1e-2, 0.9f64, 0.95f64);
        for (i, g) in gradients.iter().enumerate() {
            let step = i as i32 + 1;
            for j in 0..n {
                let g = 0.5 * f64::from(g[j]);
                m[j] = b1 * m[j] + (1.0 - b1) * g;
                v[j] = b2 * v[j] + (1.0 - b2) * g * g;
                let (mh, vh) = (m[j] / (1.0 - b1.powi(step)), v[j] / (1.0 - b2.powi(step)));
                p[j] -= lr * (mh / (vh.sqrt() + 1e-8) + 0.1 * p[j]);
            }
        }
        assert_close(&all, &[p, m, v].concat(), 1e-6, "p, m, v");
    }
}

#[test]
fn norm_is_exact_enough_and_the_same_for_any_threads() {
    let mut random = Random(6);
    for n in [0, 1, 4096, 4097, 100_000] {
        let g = random.vec(n);
        let exact: f64 = wide(&g).iter().map(|x| x * x).sum();
        let got = same_everywhere(|cpu| {
            let norm = sq_norm(cpu, &g).to_bits();
            vec![f32::from_bits((norm >> 32) as u32), f32::from_bits(norm as u32)]
        });
        assert_eq!(got.len(), 2);
        assert!((sq_norm(&fast(), &g) - exact).abs() <= 1e-6 * exact, "{n}");
    }
}

#[test]
fn one_bad_element_is_found() {
    for n in [1, 17, 50_000] {
        assert!(all_finite(&fast(), &vec![f32::MAX; n]));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![0.0; n];
            x[n - 1] = bad;
            assert!(!all_finite(&fast(), &x), "{bad} at the end of {n}");
        }
    }
}
