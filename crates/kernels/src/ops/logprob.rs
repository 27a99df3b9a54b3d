//! Log-probabilities, entropy and exact KL from a chunk of logits \[R, V\], and the gradient at the logits. Rows are independent.
//! Does not know losses: a loss arrives as one coefficient per row.

use crate::Cpu;
use crate::simd::{LANES, Simd, dispatch, exp, ln, log_sum_exp};

use super::rows::{Shared, split};

/// What one row of logits says about its target.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RowScore {
    /// ln p(target)
    pub logprob: f32,
    /// ln Σ eᶻ
    pub lse: f32,
    /// −Σ p ln p, in nats
    pub entropy: f32,
}

/// Rows whose log-probabilities enter a loss.
#[derive(Debug, Clone, Copy)]
pub struct ScoreGradient<'a> {
    /// \[R\]
    pub targets: &'a [u32],
    /// \[R\], from [`score_rows`]
    pub scores: &'a [RowScore],
    /// \[R\], dLoss/d ln p(target)
    pub coefficients: &'a [f32],
}

/// The exact KL(policy ‖ reference) in a loss.
#[derive(Debug, Clone, Copy)]
pub struct KlTerm<'a> {
    /// \[R, V\]
    pub ref_logits: &'a [f32],
    /// \[R\]
    pub ref_lse: &'a [f32],
    /// \[R\], from [`kl_rows`]
    pub kl: &'a [f32],
    /// \[R\], dLoss/dKL
    pub weights: &'a [f32],
}

/// Elements of one partial sum over the vocabulary: keeps f32 sums short, fixed so that the tree is.
const BLOCK: usize = 2048;

/// Work of one element against a copy, for the split over threads (one exponential).
const COST: usize = 8;

/// ln Σ eᶻ of one row, the same bits as [`RowScore::lse`].
pub fn row_lse(cpu: &Cpu, logits: &[f32]) -> f32 {
    let sums = row_sums(cpu.isa(), logits);
    log_sum_exp(sums.maximum, sums.sum)
}

/// Scores every row of `logits`\[R, V\] against its target.
///
/// # Panics
/// When the shapes disagree or a target is not below `v`.
pub fn score_rows(cpu: &Cpu, logits: &[f32], v: usize, targets: &[u32], out: &mut [RowScore]) {
    let shapes = v > 0 && logits.len() == targets.len() * v && out.len() == targets.len();
    assert!(shapes, "score_rows: logits are [R, V], targets and out are [R]");
    let scores = Shared::new(out);
    split(cpu, targets.len(), COST * v, &|rows| {
        for r in rows {
            let row = &logits[r * v..(r + 1) * v];
            let sums = row_sums(cpu.isa(), row);
            let log_sum = ln(f64::from(sums.sum));
            let score = RowScore {
                logprob: (f64::from(row[targets[r] as usize] - sums.maximum) - log_sum) as f32,
                lse: log_sum_exp(sums.maximum, sums.sum),
                entropy: (log_sum - f64::from(sums.weighted) / f64::from(sums.sum)) as f32,
            };
            // SAFETY: every row is written by one task.
            unsafe { scores.set(r, score) };
        }
    });
}

/// out\[R\] = Σ p·(ln p − ln p_ref) over the vocabulary.
///
/// # Panics
/// When the shapes disagree.
pub fn kl_rows(cpu: &Cpu, logits: &[f32], lse: &[f32], ref_logits: &[f32], ref_lse: &[f32], out: &mut [f32]) {
    let rows = out.len();
    let shapes = logits.len() == ref_logits.len() && lse.len() == rows && ref_lse.len() == rows;
    assert!(shapes && logits.len().is_multiple_of(rows.max(1)), "kl_rows: logits are [R, V], the rest [R]");
    let v = logits.len() / rows.max(1);
    let kl = Shared::new(out);
    split(cpu, rows, COST * v, &|rows| {
        for r in rows {
            let row = r * v..(r + 1) * v;
            let value = kl_row(cpu.isa(), [&logits[row.clone()], &ref_logits[row]], [lse[r], ref_lse[r]]);
            // SAFETY: every row is written by one task.
            unsafe { kl.set(r, value) };
        }
    });
}

/// Turns `logits`\[R, V\] into dLoss/dlogits in place:
/// coefficient·(onehot(target) − p) + weight·p·(ln p − ln p_ref − KL).
///
/// # Panics
/// When the shapes disagree or a target is not below `v`.
pub fn score_backward(cpu: &Cpu, logits: &mut [f32], v: usize, rows: ScoreGradient, kl: Option<KlTerm>) {
    let r = rows.targets.len();
    let shapes = v > 0 && logits.len() == r * v && rows.scores.len() == r && rows.coefficients.len() == r;
    assert!(shapes, "score_backward: logits are [R, V], targets, scores and coefficients are [R]");
    if let Some(kl) = &kl {
        let shapes = kl.ref_logits.len() == r * v && [kl.ref_lse, kl.kl, kl.weights].iter().all(|x| x.len() == r);
        assert!(shapes, "score_backward: reference logits are [R, V], its other terms [R]");
    }
    let out = Shared::new(logits);
    split(cpu, r, COST * v, &|range| {
        for r in range {
            // SAFETY: every row is written by one task.
            let row = unsafe { out.slice(r * v..(r + 1) * v) };
            let (lse, coefficient) = (rows.scores[r].lse, rows.coefficients[r]);
            match &kl {
                None => score_backward_row(cpu.isa(), row, lse, coefficient),
                Some(kl) => {
                    let term = KlRow { ref_lse: kl.ref_lse[r], kl: kl.kl[r], weight: kl.weights[r] };
                    kl_backward_row(cpu.isa(), row, lse, coefficient, &kl.ref_logits[r * v..(r + 1) * v], term);
                }
            }
            row[rows.targets[r] as usize] += coefficient;
        }
    });
}

struct RowSums {
    maximum: f32,
    /// Σ e^(z − maximum)
    sum: f32,
    /// Σ e^(z − maximum)·(z − maximum)
    weighted: f32,
}

dispatch!(fn row_sums(z: &[f32]) -> RowSums = row_sums_kernel);

#[inline(always)]
unsafe fn row_sums_kernel<S: Simd>(z: &[f32]) -> RowSums {
    // SAFETY: the caller's promise; lanes inside the chunks.
    unsafe {
        let lowest = S::splat(f32::MIN);
        let mut maximum = lowest;
        for z in z.chunks(LANES) {
            maximum = S::max(maximum, S::first_n(S::load_n(z.as_ptr(), z.len()), lowest, z.len()));
        }
        let maximum = S::maximum(maximum);
        let (mut sum, mut weighted) = (S::zero(), S::zero());
        for block in z.chunks(BLOCK) {
            let (mut s, mut w) = (S::zero(), S::zero());
            for z in block.chunks(LANES) {
                // Finite, so that a forbidden token (−∞) weighs 0 · finite and not NaN.
                let d = S::max(lowest, S::sub(S::load_n(z.as_ptr(), z.len()), S::splat(maximum)));
                let e = S::first_n(exp::<S>(d), S::zero(), z.len());
                s = S::add(s, e);
                w = S::fma(e, d, w);
            }
            sum = S::add(sum, s);
            weighted = S::add(weighted, w);
        }
        RowSums { maximum, sum: S::sum(sum), weighted: S::sum(weighted) }
    }
}

dispatch!(fn kl_row(z: [&[f32]; 2], lse: [f32; 2]) -> f32 = kl_row_kernel);

#[inline(always)]
unsafe fn kl_row_kernel<S: Simd>(z: [&[f32]; 2], lse: [f32; 2]) -> f32 {
    let [policy, reference] = z;
    // SAFETY: the caller's promise; lanes inside the chunks.
    unsafe {
        let mut sum = S::zero();
        for (policy, reference) in policy.chunks(BLOCK).zip(reference.chunks(BLOCK)) {
            let mut s = S::zero();
            for (policy, reference) in policy.chunks(LANES).zip(reference.chunks(LANES)) {
                let n = policy.len();
                let (p, difference) = probability_and_difference::<S>([policy.as_ptr(), reference.as_ptr()], lse, n);
                s = S::fma(S::first_n(p, S::zero(), n), difference, s);
            }
            sum = S::add(sum, s);
        }
        S::sum(sum)
    }
}

/// p and ln p − ln p_ref of n lanes.
#[inline(always)]
unsafe fn probability_and_difference<S: Simd>(z: [*const f32; 2], lse: [f32; 2], n: usize) -> (S::V, S::V) {
    // SAFETY: the caller's promise.
    unsafe {
        let lowest = S::splat(f32::MIN);
        let policy = S::max(lowest, S::sub(S::load_n(z[0], n), S::splat(lse[0])));
        let reference = S::max(lowest, S::sub(S::load_n(z[1], n), S::splat(lse[1])));
        (exp::<S>(policy), S::sub(policy, reference))
    }
}

dispatch!(fn score_backward_row(z: &mut [f32], lse: f32, coefficient: f32) = score_backward_row_kernel);

#[inline(always)]
unsafe fn score_backward_row_kernel<S: Simd>(z: &mut [f32], lse: f32, coefficient: f32) {
    for z in z.chunks_mut(LANES) {
        let n = z.len();
        // SAFETY: the caller's promise; n lanes of the chunk.
        unsafe {
            let p = exp::<S>(S::sub(S::load_n(z.as_ptr(), n), S::splat(lse)));
            S::store_n(z.as_mut_ptr(), S::mul(p, S::splat(-coefficient)), n);
        }
    }
}

#[derive(Clone, Copy)]
struct KlRow {
    ref_lse: f32,
    kl: f32,
    weight: f32,
}

dispatch!(fn kl_backward_row(z: &mut [f32], lse: f32, coefficient: f32, reference: &[f32], term: KlRow) = kl_backward_row_kernel);

#[inline(always)]
unsafe fn kl_backward_row_kernel<S: Simd>(z: &mut [f32], lse: f32, coefficient: f32, reference: &[f32], term: KlRow) {
    for (z, reference) in z.chunks_mut(LANES).zip(reference.chunks(LANES)) {
        let n = z.len();
        // SAFETY: the caller's promise; n lanes of both chunks.
        unsafe {
            let lse = [lse, term.ref_lse];
            let (p, difference) = probability_and_difference::<S>([z.as_ptr(), reference.as_ptr()], lse, n);
            let slope = S::mul(S::sub(difference, S::splat(term.kl)), S::splat(term.weight));
            S::store_n(z.as_mut_ptr(), S::mul(p, S::sub(slope, S::splat(coefficient))), n);
        }
    }
}
