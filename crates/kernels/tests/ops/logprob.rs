//! Scores, KL and their gradient at the logits.

use tiger_kernels::ops::logprob::{KlTerm, RowScore, ScoreGradient, kl_rows, row_lse, score_backward, score_rows};

use crate::support::{Random, assert_close, assert_same, differences, fast, same_everywhere, wide};

const FORWARD: f64 = 2e-6;
const GRADIENT: f64 = 1e-5;

fn log_softmax(z: &[f64]) -> (Vec<f64>, f64) {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
    (z.iter().map(|z| z - lse).collect(), lse)
}

fn kl(z: &[f64], reference: &[f64]) -> f64 {
    let ((p, _), (q, _)) = (log_softmax(z), log_softmax(reference));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn flat(scores: &[RowScore]) -> Vec<f32> {
    scores.iter().flat_map(|s| [s.logprob, s.lse, s.entropy]).collect()
}

#[test]
fn scores_match_f64_and_keep_rows_apart() {
    let mut random = Random(10);
    for (r, v) in [(1, 1), (2, 16), (3, 50), (4, 2049), (3, 10_007)] {
        let z = random.scaled(r * v, 12.0);
        let targets: Vec<u32> = (0..r).map(|_| random.below(v) as u32).collect();
        let score = |cpu: &_, z: &[f32], targets: &[u32]| {
            let mut out = vec![RowScore::default(); targets.len()];
            score_rows(cpu, z, v, targets, &mut out);
            flat(&out)
        };
        let got = same_everywhere(|cpu| score(cpu, &z, &targets));
        for (i, row) in z.chunks(v).enumerate() {
            let (log_p, lse) = log_softmax(&wide(row));
            let entropy = -log_p.iter().map(|p| p.exp() * p).sum::<f64>();
            assert_close(&got[3 * i..3 * i + 3], &[log_p[targets[i] as usize], lse, entropy], FORWARD, "scores");
            assert_same(&score(&fast(), row, &targets[i..=i]), &got[3 * i..3 * i + 3], "row alone");
            assert_same(&[row_lse(&fast(), row)], &got[3 * i + 1..3 * i + 2], "row_lse");
        }
    }
}

#[test]
fn kl_matches_f64() {
    let mut random = Random(11);
    for (r, v) in [(1, 16), (3, 50), (2, 5000)] {
        let (z, reference) = (random.scaled(r * v, 5.0), random.scaled(r * v, 5.0));
        let cpu = fast();
        let lse = |z: &[f32]| z.chunks(v).map(|row| row_lse(&cpu, row)).collect::<Vec<_>>();
        let got = same_everywhere(|cpu| {
            let mut out = vec![0.0; r];
            kl_rows(cpu, &z, &lse(&z), &reference, &lse(&reference), &mut out);
            out
        });
        let exact: Vec<f64> = z.chunks(v).zip(reference.chunks(v)).map(|(z, q)| kl(&wide(z), &wide(q))).collect();
        assert_close(&got, &exact, 1e-5, "kl");
    }
}

#[test]
fn gradient_matches_differences() {
    let mut random = Random(12);
    for (r, v, with_kl) in [(1, 5, false), (3, 50, false), (2, 33, true), (3, 64, true)] {
        let (z, reference) = (random.scaled(r * v, 3.0), random.scaled(r * v, 3.0));
        let targets: Vec<u32> = (0..r).map(|_| random.below(v) as u32).collect();
        let (coefficients, weights) = (random.vec(r), random.vec(r));
        let cpu = fast();
        let mut scores = vec![RowScore::default(); r];
        score_rows(&cpu, &z, v, &targets, &mut scores);
        let lse: Vec<f32> = scores.iter().map(|s| s.lse).collect();
        let ref_lse: Vec<f32> = reference.chunks(v).map(|row| row_lse(&cpu, row)).collect();
        let mut kl_values = vec![0.0; r];
        kl_rows(&cpu, &z, &lse, &reference, &ref_lse, &mut kl_values);
        let got = same_everywhere(|cpu| {
            let mut d = z.clone();
            let term = KlTerm { ref_logits: &reference, ref_lse: &ref_lse, kl: &kl_values, weights: &weights };
            let rows = ScoreGradient { targets: &targets, scores: &scores, coefficients: &coefficients };
            score_backward(cpu, &mut d, v, rows, with_kl.then_some(term));
            d
        });
        let expected = differences(&wide(&z), |z| {
            (0..r)
                .map(|i| {
                    let row = &z[i * v..(i + 1) * v];
                    let policy = f64::from(coefficients[i]) * log_softmax(row).0[targets[i] as usize];
                    let kl = f64::from(weights[i]) * kl(row, &wide(&reference[i * v..(i + 1) * v]));
                    policy + if with_kl { kl } else { 0.0 }
                })
                .sum()
        });
        assert_close(&got, &expected, GRADIENT, "dlogits");
    }
}

#[test]
fn extreme_logits_give_no_nan() {
    let v = 40;
    for (fill, peak) in [(-1e4, 1e4), (1e4, 1e4), (0.0, f32::NEG_INFINITY), (f32::NEG_INFINITY, 3.0)] {
        let mut z = vec![fill; v];
        z[7] = peak;
        let target = if peak == f32::NEG_INFINITY { 3 } else { 7 };
        let mut scores = [RowScore::default()];
        score_rows(&fast(), &z, v, &[target], &mut scores);
        let s = scores[0];
        assert!(s.logprob.is_finite() && s.lse.is_finite() && s.entropy.is_finite() && s.entropy >= 0.0, "{fill} {peak}: {s:?}");
        let mut kl_values = [0.0];
        kl_rows(&fast(), &z, &[s.lse], &z, &[s.lse], &mut kl_values);
        assert_eq!(kl_values, [0.0]);
        let term = KlTerm { ref_logits: &z.clone(), ref_lse: &[s.lse], kl: &kl_values, weights: &[1.0] };
        score_backward(&fast(), &mut z, v, ScoreGradient { targets: &[target], scores: &scores, coefficients: &[1.0] }, Some(term));
        assert!(z.iter().all(|x| x.is_finite()), "{fill} {peak}: {z:?}");
        // lse near 10⁴ is known to 10⁻³ in f32.
        assert!(z.iter().sum::<f32>().abs() < 1e-3, "a gradient at logits sums to 0");
    }
}
