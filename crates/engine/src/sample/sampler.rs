//! Draws a token from one row of logits. Knows the row and the settings; neither the batch nor the model.
//!
//! Order of the filters: constraint, temperature, top-k, top-p (on what top-k leaves, made to sum to 1), min-p. Each keeps a beginning of
//! the row sorted by (logit falling, id rising), so that what is kept is one cut in that order. The draw is the inverse of the cumulative
//! distribution in id order: no sort when nothing is filtered, and only of the few that matter otherwise.

use std::cmp::Ordering;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use tiger_kernels::Isa;
use tiger_kernels::ops::weights::{WEIGHT_BLOCK, weight_sums};

use super::exponential::exp;
use crate::request::{Sampling, TokenMask};

/// Domain of the generator's key, so that no other use of the same seed draws the same numbers.
const KEY_DOMAIN: &[u8; 16] = b"tiger/sampler/01";

/// Exponents below the maximum within which the nucleus is looked for first: e⁻⁸ is a three-thousandth of the best token.
const NUCLEUS_REACH: f32 = 8.0;

/// Bins for each unit of exponent when a nucleus is wider than that.
const BINS_PER_UNIT: f32 = 32.0;

/// Bins up to where weights vanish.
const BINS: usize = 88 * 32;

/// Which draw of a request: everything that the random number depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrawId {
    /// Seed of the request.
    pub seed: u64,
    /// Index of the sample.
    pub sample: u32,
    /// Absolute position of the token that is drawn.
    pub position: usize,
}

/// Buffers that live from draw to draw.
#[derive(Debug, Default)]
pub struct Scratch {
    masked: Vec<f32>,
    list: Vec<(f32, u32)>,
    sums: Vec<f32>,
    bins: Vec<f64>,
}

/// Why no token can be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawError {
    /// The constraint allows no token of the vocabulary.
    NothingAllowed,
    /// The logits are not numbers.
    NotFinite,
}

/// Uniform in [0, 1), 53 bits, from ChaCha8 keyed by the seed: stream = sample, place = position.
pub fn uniform(id: DrawId) -> f64 {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&id.seed.to_le_bytes());
    key[16..].copy_from_slice(KEY_DOMAIN);
    let mut generator = ChaCha8Rng::from_seed(key);
    generator.set_stream(u64::from(id.sample));
    // Two 32-bit words a draw.
    generator.set_word_pos(id.position as u128 * 2);
    (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Draws a token id from `logits` [V]. `mask` None allows all.
pub fn draw(logits: &[f32], mask: Option<&TokenMask>, sampling: &Sampling, id: DrawId, scratch: &mut Scratch) -> Result<u32, DrawError> {
    let mut masked = std::mem::take(&mut scratch.masked);
    let row = match mask {
        Some(mask) => {
            masked.clear();
            masked.extend(logits.iter().enumerate().map(|(i, z)| if allows(mask, i) { *z } else { f32::NEG_INFINITY }));
            &masked[..]
        }
        None => logits,
    };
    let drawn = draw_row(row, sampling, id, scratch);
    let drawn = drawn.ok_or_else(|| match mask {
        Some(mask) if !(0..logits.len()).any(|i| allows(mask, i)) => DrawError::NothingAllowed,
        _ => DrawError::NotFinite,
    });
    scratch.masked = masked;
    drawn
}

fn allows(mask: &[u32], token: usize) -> bool {
    mask.get(token / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
}

fn draw_row(row: &[f32], sampling: &Sampling, id: DrawId, scratch: &mut Scratch) -> Option<u32> {
    let maximum = maximum(row)?;
    if sampling.temperature <= 0.0 {
        return row.iter().position(|z| *z == maximum).map(|i| i as u32);
    }
    let heat = Heat { maximum, scale: (1.0 / f64::from(sampling.temperature)).min(f64::from(f32::MAX)) as f32 };
    let floor = heat.floor(sampling);
    let k = sampling.top_k as usize;
    let list = &mut scratch.list;
    if k > 0 && k < row.len() {
        top(row, k, list);
        list.sort_unstable_by(falling);
        let total: f64 = list.iter().map(|(z, _)| f64::from(heat.weight(*z))).sum();
        nucleus(list, heat, f64::from(sampling.top_p) * total);
    } else if sampling.top_p < 1.0 {
        let goal = f64::from(sampling.top_p) * sums(row, heat, &mut scratch.sums);
        let reach = maximum - NUCLEUS_REACH / heat.scale;
        list.clear();
        list.extend(row.iter().enumerate().filter(|(_, z)| **z >= reach).map(|(i, z)| (*z, i as u32)));
        let near: f64 = list.iter().map(|(z, _)| f64::from(heat.weight(*z))).sum();
        if near < goal {
            wide_nucleus(row, heat, goal, &mut scratch.bins, list);
        } else {
            list.sort_unstable_by(falling);
            nucleus(list, heat, goal);
        }
    } else if floor > f32::NEG_INFINITY {
        list.clear();
        list.extend(row.iter().enumerate().map(|(i, z)| (*z, i as u32)).filter(|(z, _)| *z >= floor));
    } else {
        let total = sums(row, heat, &mut scratch.sums);
        return Some(pick_dense(row, heat, uniform(id) * total, &scratch.sums));
    }
    list.retain(|(z, _)| *z >= floor);
    list.sort_unstable_by_key(|(_, token)| *token);
    Some(pick_listed(list, heat, uniform(id)))
}

/// The softmax's shift and inverse temperature.
#[derive(Clone, Copy)]
struct Heat {
    maximum: f32,
    scale: f32,
}

impl Heat {
    fn weight(self, z: f32) -> f32 {
        exp((z - self.maximum) * self.scale)
    }

    /// Smallest logit that min-p keeps: p ≥ min_p · p_max ⇔ z ≥ maximum + T · ln min_p. Compared as logits, so that the cut is exact.
    fn floor(self, sampling: &Sampling) -> f32 {
        if sampling.min_p <= 0.0 {
            return f32::NEG_INFINITY;
        }
        let floor = f64::from(self.maximum) + f64::from(sampling.temperature) * f64::from(sampling.min_p.min(1.0)).ln();
        // The nearest f32 may lie above: then the next one below keeps what lies between.
        let nearest = floor as f32;
        if f64::from(nearest) > floor { nearest.next_down() } else { nearest }
    }
}

/// Largest logit; None when there is none or one is NaN or +∞.
fn maximum(row: &[f32]) -> Option<f32> {
    let (mut maximum, mut sum) = ([f32::NEG_INFINITY; 8], [0.0f32; 8]);
    let mut take = |i: usize, z: f32| {
        maximum[i] = if z > maximum[i] { z } else { maximum[i] };
        // 0 · NaN and 0 · ∞ are NaN; a masked −∞ is not an error.
        sum[i] += if z == f32::NEG_INFINITY { 0.0 } else { z * 0.0 };
    };
    // Whole chunks by themselves: compilers make vectors of loops of known length only.
    let (chunks, rest) = row.as_chunks::<8>();
    chunks.iter().for_each(|chunk| (0..8).for_each(|i| take(i, chunk[i])));
    rest.iter().enumerate().for_each(|(i, z)| take(i, *z));
    let maximum = maximum.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    (maximum.is_finite() && !sum.iter().any(|s| s.is_nan())).then_some(maximum)
}

/// The order in which filters keep: most probable first, the lower id on ties.
fn falling(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// The k first in the order of [`falling`], unsorted. Candidates gather in a buffer of twice k that is cut back when full, so that most of
/// the row is only compared with the worst one kept.
fn top(row: &[f32], k: usize, list: &mut Vec<(f32, u32)>) {
    list.clear();
    let mut worst = f32::NEG_INFINITY;
    let cut = |list: &mut Vec<(f32, u32)>| {
        list.select_nth_unstable_by(k - 1, falling);
        list.truncate(k);
        list[k - 1].0
    };
    let room = (2 * k).max(64);
    for (i, z) in row.iter().enumerate() {
        // An equal logit comes with a higher id than those kept: it loses the tie once k are kept.
        if *z > worst || (list.len() < k && *z > f32::NEG_INFINITY) {
            list.push((*z, i as u32));
            if list.len() >= room {
                worst = cut(list);
            }
        }
    }
    if list.len() > k {
        cut(list);
    }
}

/// The `k` largest of a row of logits with their ids, falling; of equal ones the lower id first.
pub fn most_probable(row: &[f32], k: usize) -> Vec<(f32, u32)> {
    let mut list = Vec::new();
    if k > 0 {
        top(row, k, &mut list);
        list.sort_unstable_by(falling);
    }
    list
}

/// Cuts a list in falling order behind the first tokens whose weights reach `goal`; at least one stays.
fn nucleus(list: &mut Vec<(f32, u32)>, heat: Heat, goal: f64) {
    let mut sum = 0.0;
    for (i, (z, _)) in list.iter().enumerate() {
        sum += f64::from(heat.weight(*z));
        if sum >= goal {
            list.truncate(i + 1);
            return;
        }
    }
}

/// The nucleus of a flat row: weights summed in bins of logits find the bin where it ends; only that bin is sorted.
fn wide_nucleus(row: &[f32], heat: Heat, goal: f64, bins: &mut Vec<f64>, list: &mut Vec<(f32, u32)>) {
    let bin = |z: f32| (((heat.maximum - z) * heat.scale * BINS_PER_UNIT) as usize).min(BINS - 1);
    bins.clear();
    bins.resize(BINS, 0.0);
    for z in row {
        bins[bin(*z)] += f64::from(heat.weight(*z));
    }
    let mut before = 0.0;
    let mut last = BINS - 1;
    for (i, sum) in bins.iter().enumerate() {
        if before + sum >= goal {
            last = i;
            break;
        }
        before += sum;
    }
    let all = row.iter().enumerate().filter(|(_, z)| **z > f32::NEG_INFINITY).map(|(i, z)| (*z, i as u32));
    list.clear();
    list.extend(all.clone().filter(|(z, _)| bin(*z) == last));
    list.sort_unstable_by(falling);
    nucleus(list, heat, goal - before);
    list.extend(all.filter(|(z, _)| bin(*z) < last));
}

/// Weights summed block by block into `sums`; returns the total.
fn sums(row: &[f32], heat: Heat, sums: &mut Vec<f32>) -> f64 {
    sums.clear();
    sums.resize(row.len().div_ceil(WEIGHT_BLOCK), 0.0);
    // The same bits with any instruction set.
    weight_sums(Isa::detect(), row, heat.maximum, heat.scale, sums);
    sums.iter().map(|s| f64::from(*s)).sum()
}

/// First token in id order at which the cumulated weight exceeds `goal`.
fn pick_dense(row: &[f32], heat: Heat, goal: f64, sums: &[f32]) -> u32 {
    let mut left = goal;
    let mut chosen = sums.iter().rposition(|s| *s > 0.0).unwrap_or(0);
    for (i, sum) in sums.iter().enumerate().take(chosen) {
        if left < f64::from(*sum) {
            chosen = i;
            break;
        }
        left -= f64::from(*sum);
    }
    let first = chosen * WEIGHT_BLOCK;
    let mut last = first;
    for (i, z) in row.iter().enumerate().skip(first).take(WEIGHT_BLOCK) {
        let weight = f64::from(heat.weight(*z));
        if weight > 0.0 {
            last = i;
        }
        if left < weight {
            return i as u32;
        }
        left -= weight;
    }
    // The block's sum was rounded up: the draw belongs to its last token.
    last as u32
}

/// The same over a list in id order; never empty.
fn pick_listed(list: &[(f32, u32)], heat: Heat, uniform: f64) -> u32 {
    let total: f64 = list.iter().map(|(z, _)| f64::from(heat.weight(*z))).sum();
    let mut left = uniform * total;
    for (z, token) in list {
        let weight = f64::from(heat.weight(*z));
        if left < weight {
            return *token;
        }
        left -= weight;
    }
    list.last().map_or(0, |(_, token)| *token)
}
