//! The sampler against a plain reference: which tokens a filter keeps, how often each is drawn, what a draw depends on.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tiger_engine::Sampling;
use tiger_engine::sample::exponential::exp;
use tiger_engine::sample::sampler::{DrawError, DrawId, Scratch, draw, uniform};

fn sampling(temperature: f32, top_k: u32, top_p: f32, min_p: f32) -> Sampling {
    Sampling { temperature, top_p, top_k, min_p, seed: 0 }
}

fn id(seed: u64, position: usize) -> DrawId {
    DrawId { seed, sample: 0, position }
}

/// Logits that look like a model's: a few likely tokens, a long tail, some exact ties.
fn logits(v: usize, spread: f32, seed: u64) -> Vec<f32> {
    let value = |i: usize| {
        let u = uniform(id(seed, i)).max(1e-9) as f32;
        (spread * (-u.ln()) * 4.0).round() / 4.0
    };
    (0..v).map(value).collect()
}

/// Probabilities after the filters, written as slowly and plainly as possible.
fn reference(logits: &[f32], s: &Sampling, mask: Option<&[u32]>) -> Vec<f64> {
    let allowed = |i: usize| mask.is_none_or(|m| m.get(i / 32).is_some_and(|w| w >> (i % 32) & 1 == 1));
    let maximum = (0..logits.len()).filter(|i| allowed(*i)).map(|i| logits[i]).fold(f32::NEG_INFINITY, f32::max);
    let weight = |i: usize| (f64::from(logits[i] - maximum) / f64::from(s.temperature)).exp();
    let mut kept: Vec<usize> = (0..logits.len()).filter(|i| allowed(*i)).collect();
    kept.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    if s.top_k > 0 {
        kept.truncate(s.top_k as usize);
    }
    let total: f64 = kept.iter().map(|i| weight(*i)).sum();
    if s.top_p < 1.0 {
        let mut sum = 0.0;
        let enough = kept.iter().position(|i| {
            sum += weight(*i);
            sum >= f64::from(s.top_p) * total
        });
        kept.truncate(enough.map_or(kept.len(), |i| i + 1));
    }
    kept.retain(|i| weight(*i) >= f64::from(s.min_p) * (1.0 - 1e-9));
    let total: f64 = kept.iter().map(|i| weight(*i)).sum();
    let mut p = vec![0.0; logits.len()];
    kept.iter().for_each(|i| p[*i] = weight(*i) / total);
    p
}

fn settings() -> Vec<Sampling> {
    vec![
        sampling(1.0, 0, 1.0, 0.0),
        sampling(0.3, 0, 1.0, 0.0),
        sampling(2.0, 0, 1.0, 0.0),
        sampling(1.0, 5, 1.0, 0.0),
        sampling(0.7, 1, 1.0, 0.0),
        sampling(0.7, 40, 0.9, 0.0),
        sampling(1.0, 0, 0.9, 0.0),
        sampling(1.0, 0, 0.1, 0.0),
        sampling(1.0, 0, 0.999_9, 0.0),
        // So flat that the nucleus reaches beyond the near tokens.
        sampling(0.2, 0, 0.999_999, 0.0),
        sampling(1.0, 0, 1.0, 0.1),
        sampling(0.8, 20, 0.8, 0.05),
        sampling(1.0, 0, 1.0, 1.0),
    ]
}

#[test]
fn draws_follow_the_reference_distribution() {
    const DRAWS: usize = 20_000;
    let mut scratch = Scratch::default();
    for (case, s) in settings().into_iter().enumerate() {
        let row = logits(600, 2.0, case as u64 + 1);
        let expected = reference(&row, &s, None);
        let mut seen = vec![0usize; row.len()];
        for position in 0..DRAWS {
            let token = draw(&row, None, &s, id(7, position), &mut scratch).unwrap();
            seen[token as usize] += 1;
        }
        let forbidden: Vec<usize> = (0..row.len()).filter(|i| seen[*i] > 0 && expected[*i] == 0.0).collect();
        assert!(forbidden.is_empty(), "{s:?} drew {forbidden:?}");
        // Chi-square over tokens that are expected often enough; the rest pooled.
        let (mut chi, mut cells, mut rare) = (0.0, 0, (0.0, 0.0));
        for (count, p) in seen.iter().zip(&expected) {
            let mean = p * DRAWS as f64;
            if mean >= 10.0 {
                chi += (*count as f64 - mean).powi(2) / mean;
                cells += 1;
            } else {
                rare = (rare.0 + *count as f64, rare.1 + mean);
            }
        }
        if rare.1 >= 10.0 {
            chi += (rare.0 - rare.1).powi(2) / rare.1;
            cells += 1;
        }
        // Mean cells − 1, variance twice that: five standard deviations above is one in millions.
        let freedom = (cells as f64 - 1.0).max(1.0);
        assert!(chi < freedom + 5.0 * (2.0 * freedom).sqrt() + 5.0, "{s:?}: chi-square {chi} over {cells} cells");
    }
}

#[test]
fn filters_keep_exactly_the_reference_set() {
    let mut scratch = Scratch::default();
    for (case, s) in settings().into_iter().enumerate() {
        // Few tokens, so that every kept one is drawn.
        let row = logits(24, 1.0, case as u64 + 100);
        let expected: BTreeSet<u32> =
            reference(&row, &s, None).iter().enumerate().filter(|(_, p)| **p > 1e-3).map(|(i, _)| i as u32).collect();
        let drawn: BTreeSet<u32> = (0..20_000).map(|position| draw(&row, None, &s, id(3, position), &mut scratch).unwrap()).collect();
        assert!(expected.is_subset(&drawn), "{s:?} never drew {:?}", expected.difference(&drawn).collect::<Vec<_>>());
    }
}

#[test]
fn a_flat_row_of_a_whole_vocabulary() {
    // Every token alike: the nucleus is half of the vocabulary, by id.
    let row = vec![1.5f32; 128_256];
    let s = sampling(1.0, 0, 0.5, 0.0);
    let mut scratch = Scratch::default();
    let drawn: Vec<u32> = (0..200).map(|position| draw(&row, None, &s, id(1, position), &mut scratch).unwrap()).collect();
    assert!(drawn.iter().all(|t| *t <= 64_129), "{drawn:?}");
    assert!(drawn.iter().any(|t| *t > 32_000));
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_id_on_ties() {
    let mut scratch = Scratch::default();
    let s = sampling(0.0, 3, 0.5, 0.2);
    assert_eq!(draw(&[0.0, 3.0, -1.0, 3.0], None, &s, id(0, 0), &mut scratch), Ok(1));
    assert_eq!(draw(&[0.0, 3.0, -1.0, 3.0], Some(&vec![0b1001]), &s, id(0, 0), &mut scratch), Ok(3));
}

#[test]
fn a_mask_binds_and_a_hopeless_one_is_an_error() {
    let row = logits(100, 2.0, 9);
    let mask = vec![0x0000_00f0, 0, 0x8000_0000];
    let mut scratch = Scratch::default();
    for s in settings() {
        let expected = reference(&row, &s, Some(&mask));
        for position in 0..300 {
            let token = draw(&row, Some(&mask), &s, id(5, position), &mut scratch).unwrap();
            assert!(expected[token as usize] > 0.0, "{s:?} drew {token}");
        }
    }
    let s = sampling(1.0, 0, 1.0, 0.0);
    assert_eq!(draw(&row, Some(&vec![0, 0, 0, 0]), &s, id(0, 0), &mut scratch), Err(DrawError::NothingAllowed));
    assert_eq!(draw(&row, Some(&vec![]), &s, id(0, 0), &mut scratch), Err(DrawError::NothingAllowed));
    assert_eq!(draw(&[f32::NAN, 1.0], None, &s, id(0, 0), &mut scratch), Err(DrawError::NotFinite));
    assert_eq!(draw(&[f32::INFINITY, 1.0], None, &s, id(0, 0), &mut scratch), Err(DrawError::NotFinite));
}

#[test]
fn a_draw_depends_on_seed_sample_and_position_only() {
    let base = DrawId { seed: 1, sample: 2, position: 3 };
    let others = [DrawId { seed: 2, ..base }, DrawId { sample: 3, ..base }, DrawId { position: 4, ..base }];
    assert_eq!(uniform(base), uniform(base));
    for other in others {
        assert_ne!(uniform(base), uniform(other));
    }
    // The stream is a contract: a change of generator or key would change everybody's seeded answers.
    let pinned: Vec<u64> = (0..3).map(|position| (uniform(id(42, position)) * 1e15) as u64).collect();
    assert_eq!(pinned, PINNED);
}

/// First three draws of seed 42.
const PINNED: [u64; 3] = [836_645_947_702_506, 142_734_227_095_880, 499_428_898_620_114];

#[test]
fn the_exponential_is_close_and_falls() {
    let mut before = 0.0;
    for i in (0..88_000).rev() {
        let x = -(i as f32) / 1000.0;
        let (value, exact) = (exp(x), f64::from(x).exp());
        if x > -87.0 {
            assert!((f64::from(value) / exact - 1.0).abs() < 4e-7, "exp({x}) = {value}, not {exact}");
        }
        assert!(f64::from(value) >= before * (1.0 - 1e-6));
        before = f64::from(value);
    }
    assert_eq!((exp(0.0), exp(-100.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn never_outside_what_the_filters_keep(
        row in prop::collection::vec(-30.0f32..30.0, 1..400),
        temperature in prop::sample::select(vec![0.0f32, 1e-6, 0.5, 1.0, 5.0]),
        top_k in 0u32..50,
        top_p in 0.01f32..=1.0,
        min_p in 0.0f32..=1.0,
        seed in any::<u64>(),
    ) {
        let s = sampling(temperature, top_k, top_p, min_p);
        let token = draw(&row, None, &s, id(seed, 5), &mut Scratch::default()).unwrap() as usize;
        prop_assert!(token < row.len());
        if temperature > 0.0 {
            // The reference with a little room at the edge of the nucleus, where sums are rounded.
            let wider = Sampling { top_p: (top_p * 1.00001).min(1.0), ..s };
            prop_assert!(reference(&row, &wider, None)[token] > 0.0);
        }
    }
}
