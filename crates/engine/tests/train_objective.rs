//! The formulas of training, on explicit logits in f64: properties, finite differences, PyTorch's numbers.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the report")]

use tiger_engine::train::objective::{
    Fade, Plan, Planned, Potential, Sampled, advantages, argument, default_learning_rate, k3, potential, single_mean, summarize, token_loss,
};
use tiger_engine::train::reference::{Evaluation, Logits, evaluate, log_softmax, logprobs};
use tiger_engine::train::validate::{validate_groups, validate_knobs};
use tiger_engine::{AdvantageScale, Baseline, Group, Knobs, LengthNorm, Objective, Recorded, Response};

const OBJECTIVES: [Objective; 4] = [Objective::Tapered, Objective::ImportanceSampling, Objective::Ppo, Objective::Sft];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In −1..1.
    fn signed(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn text(tokens: &[u32], reward: f64) -> Response {
    Response { tokens: tokens.to_vec(), reward, recorded: None }
}

fn recorded(tokens: &[u32], reward: f64, logprobs: &[f32]) -> Response {
    Response { tokens: tokens.to_vec(), reward, recorded: Some(Recorded { logprobs: logprobs.to_vec(), staleness: 0 }) }
}

#[test]
fn equal_rewards_give_exact_zero() {
    for value in [0.1, -3.7, 1e30, 0.0] {
        for k in [2, 3, 7, 256] {
            for scale in [AdvantageScale::Cap, AdvantageScale::None, AdvantageScale::Group] {
                assert_eq!(advantages(&vec![value; k], Baseline::GroupMean, scale), vec![0.0; k]);
            }
        }
    }
    // The rounding of a mean must not pass for a difference, and a real difference must not vanish.
    let a = advantages(&[0.3, 0.1 + 0.2], Baseline::GroupMean, AdvantageScale::Cap);
    assert!(a[1] > a[0]);
    assert_eq!(advantages(&[0.5, 0.5], Baseline::Value(0.5), AdvantageScale::Cap), [0.0, 0.0]);
    assert_eq!(advantages(&[0.5, 0.5], Baseline::None, AdvantageScale::Cap), [0.5, 0.5]);
}

#[test]
fn one_response_keeps_its_reward() {
    assert_eq!(advantages(&[-1.0], Baseline::GroupMean, AdvantageScale::Cap), [-1.0]);
    assert_eq!(advantages(&[5.0], Baseline::GroupMean, AdvantageScale::Cap), [1.0]);
    assert_eq!(advantages(&[5.0], Baseline::GroupMean, AdvantageScale::None), [5.0]);
    assert_eq!(advantages(&[5.0], Baseline::GroupMean, AdvantageScale::Group), [1.0]);
    assert_eq!(advantages(&[5.0], Baseline::Value(4.5), AdvantageScale::Cap), [0.5]);
}

#[test]
fn advantages_are_shift_invariant_ordered_bounded_and_sum_to_zero() {
    let mut random = Random(1);
    for round in 0..300 {
        let k = 2 + random.below(12);
        let size = [0.01, 1.0, 100.0][round % 3];
        let rewards: Vec<f64> = (0..k).map(|_| size * random.signed()).collect();
        let shifted: Vec<f64> = rewards.iter().map(|r| r + 3.0).collect();
        for scale in [AdvantageScale::Cap, AdvantageScale::None, AdvantageScale::Group] {
            let a = advantages(&rewards, Baseline::GroupMean, scale);
            let tolerance = 1e-12 * size.max(1.0) * if scale == AdvantageScale::Group { 1e3 } else { 1.0 };
            for (x, y) in a.iter().zip(advantages(&shifted, Baseline::GroupMean, scale)) {
                assert!((x - y).abs() < tolerance, "{x} {y}");
            }
            assert!(a.iter().sum::<f64>().abs() < 1e-12 * k as f64 * size.max(1.0));
            for i in 0..k {
                for j in 0..k {
                    assert_eq!(rewards[i] < rewards[j], a[i] < a[j], "order");
                }
            }
            // Permuting rewards permutes advantages, bit for bit.
            let order: Vec<usize> = (0..k).map(|i| (i * 5 + 3) % k).collect();
            if order.iter().collect::<std::collections::BTreeSet<_>>().len() == k {
                let permuted = advantages(&order.iter().map(|i| rewards[*i]).collect::<Vec<_>>(), Baseline::GroupMean, scale);
                assert_eq!(permuted, order.iter().map(|i| a[*i]).collect::<Vec<_>>());
            }
            if scale == AdvantageScale::Cap {
                assert!(a.iter().all(|a| a.abs() <= 1.0));
                assert!(a.iter().zip(&rewards).all(|(a, r)| a.abs() <= (r - summarize(&rewards).mean).abs() + 1e-15), "never enlarged");
            }
        }
    }
}

#[test]
fn summary_of_rewards() {
    let s = summarize(&[1.0, 3.0, -1.0, 1.0]);
    assert_eq!((s.mean, s.min, s.max), (1.0, -1.0, 3.0));
    assert!((s.std - 2f64.sqrt()).abs() < 1e-12);
}

#[test]
fn wrong_requests_are_refused_by_field() {
    let good = || Group { prompt: vec![1], responses: vec![text(&[1, 2], 1.0), recorded(&[3], 0.0, &[-0.5])] };
    let knobs = Knobs::default();
    assert_eq!(validate_groups(&[good()]), Ok(()));
    assert_eq!(validate_knobs(&knobs), Ok(()));
    type Break = fn(&mut Group);
    let groups: [(&str, Break); 8] = [
        ("batch[1].responses[0].reward", |g| g.responses[0].reward = f64::NAN),
        ("batch[1].responses[1].reward", |g| g.responses[1].reward = f64::NEG_INFINITY),
        ("batch[1].responses[0].reward", |g| g.responses[0].reward = 1e200),
        ("batch[1].responses", |g| g.responses.clear()),
        ("batch[1].messages", |g| g.prompt.clear()),
        ("batch[1].responses[0].content", |g| g.responses[0].tokens.clear()),
        ("batch[1].responses[1].response_id", |g| g.responses[1].tokens.push(1)),
        ("batch[1].responses[1].response_id", |g| g.responses[1].recorded = Some(Recorded { logprobs: vec![f32::NAN], staleness: 0 })),
    ];
    for (path, change) in groups {
        let mut bad = good();
        change(&mut bad);
        assert_eq!(validate_groups(&[good(), bad]).unwrap_err().path(), path);
    }
    assert_eq!(validate_groups(&[]).unwrap_err().path(), "batch");
    type BreakKnob = fn(&mut Knobs);
    let cases: [(&str, BreakKnob); 12] = [
        ("learning_rate", |k| k.learning_rate = 0.0),
        ("learning_rate", |k| k.learning_rate = f64::NAN),
        ("steps", |k| k.steps = 0),
        ("steps", |k| k.steps = 17),
        ("target_kl", |k| k.target_kl = f64::NAN),
        ("kl_coefficient", |k| k.kl_coefficient = -0.1),
        ("kl_coefficient", |k| k.kl_coefficient = f64::INFINITY),
        ("clip_high", |k| k.clip_high = 0.9),
        ("negative_floor", |k| k.negative_floor = 0.0),
        ("negative_floor", |k| k.negative_floor = 1.1),
        ("max_grad_norm", |k| k.max_grad_norm = f64::INFINITY),
        ("baseline", |k| k.baseline = Baseline::Value(f64::NAN)),
    ];
    for (field, change) in cases {
        let mut bad = knobs.clone();
        change(&mut bad);
        let error = validate_knobs(&bad).unwrap_err();
        assert_eq!(error.field, field);
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

#[test]
fn tapered_potential_and_slope_are_continuous_and_bounded() {
    for c in [1.0, 1.5, 2.0, 1e6] {
        let knobs = Knobs { clip_high: c, ..Knobs::default() };
        for a in [1.0, -1.0, 0.3, -0.3] {
            for sampled in [Sampled::Recorded(-1.0), Sampled::Text(-1.0)] {
                let at = |u: f64| potential(&knobs, a, u, sampled);
                for kink in [0.0, c.ln(), 20.0, -20.0] {
                    let (left, right) = (at(kink - 1e-9), at(kink + 1e-9));
                    let close = |x: f64, y: f64| (x - y).abs() <= 1e-7 * (1.0 + x.abs());
                    assert!(close(left.value, right.value) && close(left.slope, right.slope), "c {c} A {a} at {kink}: {left:?} {right:?}");
                }
                let mut last = Potential { value: f64::NEG_INFINITY, slope: 0.0 };
                for i in -400..=400 {
                    let p = at(f64::from(i) / 10.0);
                    assert!(p.value.is_finite() && p.slope >= 0.0 && p.value >= last.value, "grows with the log-prob");
                    if a < 0.0 {
                        assert!(p.value >= 0.0 && p.slope <= 1.0, "bounded below, never enlarged");
                    } else {
                        assert!(p.slope <= c);
                    }
                    last = p;
                }
            }
        }
    }
}

#[test]
fn weights_are_what_the_text_says() {
    let knobs = Knobs::default();
    let slope = |a: f64, l: f64, sampled: Sampled| potential(&knobs, a, argument(&knobs, a, l, sampled), sampled).slope;
    let close = |x: f64, y: f64| assert!((x - y).abs() < 1e-12, "{x} {y}");
    close(slope(1.0, -1.0, Sampled::Recorded(-1.0)), 1.0);
    close(slope(-1.0, -1.0, Sampled::Recorded(-1.0)), 1.0);
    close(slope(1.0, -1.0, Sampled::Recorded(-1.5)), 0.5f64.exp());
    close(slope(1.0, -1.0, Sampled::Recorded(-3.0)), 2.0);
    close(slope(-1.0, -1.0, Sampled::Recorded(-3.0)), 1.0);
    close(slope(-1.0, -3.0, Sampled::Recorded(-1.0)), (-2.0f64).exp());
    close(slope(1.0, -9.0, Sampled::Text(-1.0)), 1.0);
    close(slope(-1.0, 0.05f64.ln(), Sampled::Text(-1.0)), 0.5);
    close(slope(-1.0, 0.3f64.ln(), Sampled::Text(-1.0)), 1.0);
    // No policy term at all without an advantage.
    let idle = Planned { group: 0, index: 0, advantage: 0.0, weight: 0.25, tokens: 4 };
    let token = token_loss(&knobs, &idle, -1.0, Sampled::Recorded(-2.0));
    assert_eq!((token.policy, token.coefficient, token.kl_weight), (0.0, 0.0, 0.0125));
    let sft = Knobs { objective: Objective::Sft, ..knobs };
    let bad = Planned { advantage: -1.0, ..idle };
    assert_eq!(token_loss(&sft, &bad, -1.0, Sampled::Text(-1.0)).coefficient, 0.0);
    assert!(Plan { responses: vec![bad], trained_tokens: 4, evidence: 1.0 }.is_idle(Objective::Sft));
    assert!(!Plan { responses: vec![bad], trained_tokens: 4, evidence: 1.0 }.is_idle(Objective::Tapered));
}

fn single(reward: f64, recorded: bool) -> [Group; 1] {
    let recorded = recorded.then(|| Recorded { logprobs: vec![-1.0; 2], staleness: 0 });
    [Group { prompt: vec![0], responses: vec![Response { recorded, ..text(&[1, 2], reward) }] }]
}

#[test]
fn a_single_sample_is_compared_with_those_before_it() {
    let plan = |reward: f64, recorded: bool, past: f64, knobs: &Knobs| {
        let plan = Plan::after(&single(reward, recorded), knobs, past);
        (plan.responses[0].advantage, plan.evidence * plan.evidence * 8.0)
    };
    let check = |got: (f64, f64), want: (f64, f64)| {
        assert!((got.0 - want.0).abs() < 1e-12 && (got.1 - want.1).abs() < 1e-12, "{got:?}, not {want:?}");
    };
    let usual = Knobs::default();
    check(plan(-1.0, true, 0.0, &usual), (-1.0, 1.0));
    // Punishment that was to be expected tells less, and the step is smaller by as much; beyond full size it does not grow.
    check(plan(-1.0, true, -0.4, &usual), (-0.6, 0.36));
    check(plan(-1e6, true, -0.4, &usual), (-0.6, 0.36));
    check(plan(0.25, true, -0.5, &usual), (0.75, 1.0));
    check(plan(1.0, true, -0.5, &usual), (1.0, 1.0));
    assert!(Plan::after(&single(-1.0, true), &usual, -1.0).is_idle(Objective::Tapered));
    // Praise asks for what is said anyway: it is not compared.
    check(plan(1.0, true, 0.7, &usual), (1.0, 1.0));
    check(plan(-1.0, true, 0.7, &usual), (-1.0, 1.0));
    // Texts, and what a caller says, are taken as they are.
    check(plan(-1.0, false, -0.4, &usual), (-1.0, 1.0));
    check(plan(-1.0, true, -0.4, &Knobs { baseline: Baseline::None, ..usual.clone() }), (-1.0, 1.0));
    check(plan(-1.0, true, -0.4, &Knobs { advantage_scale: AdvantageScale::None, ..usual.clone() }), (-1.0, 1.0));
    let pair = [Group { prompt: vec![0], responses: vec![text(&[1], -1.0), text(&[2], 0.0)] }];
    assert_eq!(Plan::after(&pair, &usual, -0.9), Plan::new(&pair, &usual));
    // The mean itself.
    assert!((single_mean(-0.5, &single(-1e6, true)) + 0.55).abs() < 1e-12);
    assert_eq!(single_mean(-0.5, &single(-1.0, false)), -0.5);
    assert_eq!(single_mean(-0.5, &pair), -0.5);
}

#[test]
fn few_responses_take_small_steps() {
    let evidence = |rewards: &[f64], objective| {
        let responses = rewards.iter().map(|r| text(&[1], *r)).collect();
        Plan::new(&[Group { prompt: vec![0], responses }], &Knobs { objective, ..Knobs::default() }).evidence
    };
    assert_eq!(evidence(&[1.0, 0.0], Objective::Tapered), 0.5);
    assert_eq!(evidence(&[1.0, 0.0, 0.5], Objective::Tapered), (2.0f64 / 8.0).sqrt());
    assert_eq!(evidence(&[1.0, 0.0], Objective::Sft), 0.125f64.sqrt());
    assert_eq!(evidence(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], Objective::Tapered), 1.0);
    assert_eq!(evidence(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0], Objective::Tapered), 1.0);
    assert_eq!(evidence(&[1.0, 1.0], Objective::Tapered), 0.0);
}

#[test]
fn length_norms() {
    let groups = [Group { prompt: vec![0], responses: vec![text(&[1, 2, 3], 1.0), text(&[1], 0.0)] }];
    let weights = |length_norm| -> Vec<f64> {
        Plan::new(&groups, &Knobs { length_norm, ..Knobs::default() }).responses.iter().map(|r| r.weight).collect()
    };
    assert_eq!(weights(LengthNorm::Token), [0.25, 0.25]);
    assert_eq!(weights(LengthNorm::Sequence), [1.0 / 6.0, 0.5]);
    assert_eq!(weights(LengthNorm::Constant), [1.0 / 512.0, 1.0 / 512.0]);
}

#[test]
fn drift_is_not_negative_and_zero_at_home() {
    assert_eq!(k3(-1.25, -1.25), 0.0);
    let mut random = Random(3);
    for _ in 0..1000 {
        let (l, q) = (-20.0 + 20.0 * random.signed(), -20.0 + 20.0 * random.signed());
        assert!(k3(l, q) >= 0.0 && k3(l, q).is_finite(), "{l} {q}");
    }
    assert!(k3(-1.0, -2e4).is_finite() && k3(-2e4, -1.0).is_finite());
}

#[test]
fn learning_rate_follows_the_size() {
    let close = |x: f64, y: f64| assert!((x / y - 1.0).abs() < 0.01, "{x} {y}");
    close(default_learning_rate(4096), 2.86e-5);
    close(default_learning_rate(8192), 5e-5 * (2000.0f64 / 8192.0).powf(0.781));
    close(default_learning_rate(256), 10.0 * 5e-5 * (2000.0f64 / 256.0).powf(0.781));
    close(default_learning_rate(64), 10.0 * 5e-5 * (2000.0f64 / 64.0).powf(0.781));
    assert!((16..9000).all(|h| default_learning_rate(h) > default_learning_rate(h + 1)), "falls smoothly");
}

/// A random call: three groups, recorded and text responses, prompts of several tokens.
struct Case {
    groups: Vec<Group>,
    logits: Vec<Logits>,
    reference: Vec<Logits>,
    start: Vec<Vec<f64>>,
}

fn random_case(seed: u64, v: usize, spread: f64) -> Case {
    let mut random = Random(seed);
    let (mut groups, mut logits, mut reference) = (Vec::new(), Vec::new(), Vec::new());
    for k in [3, 1, 2] {
        let prompt: Vec<u32> = (0..1 + random.below(3)).map(|_| random.below(v) as u32).collect();
        let mut responses = Vec::new();
        for i in 0..k {
            let tokens: Vec<u32> = (0..1 + random.below(3)).map(|_| random.below(v) as u32).collect();
            let rows = prompt.len() + tokens.len() - 1;
            let mut table = || -> Logits { (0..rows).map(|_| (0..v).map(|_| spread * random.signed()).collect()).collect() };
            logits.push(table());
            reference.push(table());
            let reward = 2.0 * random.signed();
            let q: Vec<f32> = tokens.iter().map(|_| (-2.0 + 1.9 * random.signed()) as f32).collect();
            responses.push(if i % 2 == 0 { recorded(&tokens, reward, &q) } else { text(&tokens, reward) });
        }
        groups.push(Group { prompt, responses });
    }
    let start = logprobs(&groups, &logits).iter().map(|r| r.iter().map(|l| l - 0.3 * random.signed()).collect()).collect();
    Case { groups, logits, reference, start }
}

fn all_knobs() -> Vec<Knobs> {
    let mut all = Vec::new();
    for objective in OBJECTIVES {
        for length_norm in [LengthNorm::Token, LengthNorm::Sequence, LengthNorm::Constant] {
            for advantage_scale in [AdvantageScale::Cap, AdvantageScale::None, AdvantageScale::Group] {
                for (baseline, kl_coefficient) in [(Baseline::GroupMean, 0.05), (Baseline::None, 0.0), (Baseline::Value(0.3), 1.0)] {
                    all.push(Knobs { objective, length_norm, advantage_scale, baseline, kl_coefficient, ..Knobs::default() });
                }
            }
        }
    }
    all.push(Knobs { clip_high: 1.2, negative_floor: 0.5, ..Knobs::default() });
    all
}

impl Case {
    fn evaluate(&self, knobs: &Knobs) -> Evaluation {
        evaluate(&self.groups, knobs, &self.logits, Some(&self.reference), &self.start)
    }
}

#[test]
fn gradient_is_that_of_the_loss() {
    const H: f64 = 1e-6;
    for (seed, knobs) in all_knobs().into_iter().enumerate() {
        let mut case = random_case(seed as u64, 5, 2.0);
        let gradient = case.evaluate(&knobs).dlogits;
        for (i, rows) in gradient.iter().enumerate() {
            for (t, row) in rows.iter().enumerate() {
                for (v, g) in row.iter().enumerate() {
                    let z = case.logits[i][t][v];
                    case.logits[i][t][v] = z + H;
                    let above = case.evaluate(&knobs).loss;
                    case.logits[i][t][v] = z - H;
                    let below = case.evaluate(&knobs).loss;
                    case.logits[i][t][v] = z;
                    let difference = (above - below) / (2.0 * H);
                    assert!((difference - g).abs() < 1e-6, "{knobs:?} response {i} row {t} logit {v}: {difference} {g}");
                }
            }
        }
    }
}

#[test]
fn prompts_get_no_gradient_and_equal_rewards_only_the_kl() {
    for knobs in all_knobs() {
        let case = random_case(9, 5, 2.0);
        let result = case.evaluate(&knobs);
        let responses = case.groups.iter().flat_map(|g| g.responses.iter().map(move |r| (g, r)));
        for ((group, _), rows) in responses.zip(&result.dlogits) {
            for row in &rows[..group.prompt.len() - 1] {
                assert!(row.iter().all(|g| *g == 0.0));
            }
        }
    }
    let mut case = random_case(10, 5, 2.0);
    let knobs = Knobs { kl_coefficient: 0.0, ..Knobs::default() };
    for r in &mut case.groups[0].responses {
        r.reward = 0.7;
    }
    let result = case.evaluate(&knobs);
    assert!(result.dlogits[..3].iter().flatten().flatten().all(|g| *g == 0.0));
    assert!(result.dlogits[3..].iter().flatten().flatten().any(|g| *g != 0.0));
    let with_kl = case.evaluate(&Knobs::default());
    assert!(with_kl.dlogits[0].iter().flatten().any(|g| *g != 0.0));
}

#[test]
fn nothing_overflows() {
    for knobs in all_knobs() {
        for seed in 0..5 {
            let mut case = random_case(seed, 5, 1e4);
            for (r, response) in case.groups.iter_mut().flat_map(|g| &mut g.responses).enumerate() {
                if let Some(q) = &mut response.recorded {
                    q.logprobs.fill([-2e4, -1e-30, -80.0][r % 3]);
                }
            }
            let result = case.evaluate(&knobs);
            assert!(result.loss.is_finite() && (0.0..=1.0).contains(&result.fade), "{knobs:?}");
            assert!(result.dlogits.iter().flatten().flatten().all(|g| g.is_finite()));
        }
    }
}

#[test]
fn opposite_advantages_on_one_response_cancel() {
    let v = 6;
    let logits: Logits = vec![(0..v).map(|i| i as f64 * 0.7 - 1.0).collect(), (0..v).map(|i| (i as f64).sin()).collect()];
    let mut groups = [Group { prompt: vec![0], responses: vec![text(&[2, 4], 1.0), text(&[2, 4], -1.0)] }];
    let logits = [logits.clone(), logits];
    let start = logprobs(&groups, &logits);
    for objective in [Objective::Tapered, Objective::ImportanceSampling, Objective::Ppo] {
        let knobs = Knobs { objective, kl_coefficient: 0.0, ..Knobs::default() };
        // Recorded in f32, so put the logits' own f64 log-probs on f32 values first by recording exactly what f32 holds.
        for r in &mut groups[0].responses {
            r.recorded = Some(Recorded { logprobs: start[0].iter().map(|l| *l as f32).collect(), staleness: 0 });
        }
        let plan = Plan::new(&groups, &knobs);
        for l in start[0].iter().map(|l| f64::from(*l as f32)) {
            let [up, down] = [0, 1].map(|i| token_loss(&knobs, &plan.responses[i], l, Sampled::Recorded(l)));
            assert!(up.coefficient != 0.0);
            assert_eq!(up.coefficient + down.coefficient, 0.0);
        }
        let result = evaluate(&groups, &knobs, &logits, None, &start);
        for (x, y) in result.dlogits[0].iter().flatten().zip(result.dlogits[1].iter().flatten()) {
            assert!((x + y).abs() < 1e-7, "f32 rounding of the record only: {x} {y}");
        }
    }
}

#[test]
fn kl_is_positive_and_zero_at_the_parent() {
    for seed in 0..20 {
        let case = random_case(seed, 7, 3.0);
        let knobs = Knobs { kl_coefficient: 1.0, ..Knobs::default() };
        assert!(case.evaluate(&knobs).kl_loss > 0.0);
        let at_home = evaluate(&case.groups, &knobs, &case.logits, Some(&case.logits), &case.start);
        assert_eq!(at_home.kl_loss, 0.0);
    }
}

/// Gradient descent on one row of logits, token 0 punished 500 times. Returns (first entropy, last entropy, sum of fades).
fn punish(slope: impl Fn(&Knobs, f64, f64) -> f64, rate: f64) -> (f64, f64) {
    let mut logits: Vec<f64> = (0..20).map(|i| if i == 0 { 2.0 } else { 0.3 * (i as f64).sin() }).collect();
    let entropy = |z: &[f64]| -log_softmax(z).iter().map(|l| l.exp() * l).sum::<f64>();
    let first = entropy(&logits);
    let knobs = Knobs { kl_coefficient: 0.0, ..Knobs::default() };
    let q = log_softmax(&logits)[0];
    for _ in 0..500 {
        let logp = log_softmax(&logits);
        // A = −1: dL/dz = ψ' (onehot − p), descended.
        let weight = slope(&knobs, logp[0], q);
        for (v, z) in logits.iter_mut().enumerate() {
            *z -= rate * weight * ((if v == 0 { 1.0 } else { 0.0 }) - logp[v].exp());
        }
    }
    (first, entropy(&logits))
}

#[test]
fn repeated_punishment_keeps_the_entropy() {
    for rate in [0.1, 0.5, 2.0] {
        for sampled in [true, false] {
            let tapered = |knobs: &Knobs, l: f64, q: f64| {
                let sampled = if sampled { Sampled::Recorded(q) } else { Sampled::Text(q) };
                potential(knobs, -1.0, argument(knobs, -1.0, l, sampled), sampled).slope
            };
            let (first, last) = punish(tapered, rate);
            assert!(last > first / 2.0, "rate {rate}: entropy {first} → {last}");
        }
    }
    let (first, last) = punish(|_, _, _| 1.0, 0.5);
    assert!(last < first / 2.0, "plain REINFORCE must fail this test: {first} → {last}");
}

#[test]
fn the_fade_measures_what_the_taper_left() {
    let knobs = Knobs::default();
    let planned = |advantage| Planned { group: 0, index: 0, advantage, weight: 0.1, tokens: 1 };
    let share = |tokens: &[(f64, f64, f64)]| {
        let mut fade = Fade::default();
        for (a, l, q) in tokens {
            fade.add(&token_loss(&knobs, &planned(*a), *l, Sampled::Recorded(*q)));
        }
        fade.share()
    };
    assert_eq!(share(&[]), 1.0);
    assert_eq!(share(&[(-1.0, -0.5, -0.5), (1.0, -0.5, -0.5)]), 1.0, "fresh samples take whole steps");
    assert!((share(&[(-1.0, -5.0, -1.0)]) - (-4.0f64).exp()).abs() < 1e-12, "a faded one only its share");
    assert_eq!(share(&[(1.0, -5.0, -1.0)]), 1.0, "a stale good response stays learnable");
    let sure = (-1.0, -1e-6, -1e-6);
    assert!(share(&[(-1.0, -6.0, -0.1), sure, sure, sure]) < 0.01, "sure tokens have no gradient and do not hide the fade");
    let half = share(&[(-1.0, -9.0, -0.5), (1.0, -9.0, -0.5)]);
    assert!((half - 0.5).abs() < 1e-3, "what is not faded still counts");
    assert_eq!(share(&[(-1.0, 0.0, 0.0)]), 1.0, "no gradient at all: nothing to scale");
}

mod golden {
    use super::*;
    use serde_json::Value;

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    fn tables(value: &Value) -> Vec<Logits> {
        value.as_array().unwrap().iter().map(|rows| rows.as_array().unwrap().iter().map(numbers).collect()).collect()
    }

    fn knobs(value: &Value) -> Knobs {
        let text = |name: &str| value[name].as_str().unwrap_or("").to_owned();
        Knobs {
            objective: match text("objective").as_str() {
                "tapered" => Objective::Tapered,
                "importance_sampling" => Objective::ImportanceSampling,
                "ppo" => Objective::Ppo,
                _ => Objective::Sft,
            },
            baseline: match (text("baseline").as_str(), value["baseline"].as_f64()) {
                (_, Some(number)) => Baseline::Value(number),
                ("none", _) => Baseline::None,
                _ => Baseline::GroupMean,
            },
            advantage_scale: match text("advantage_scale").as_str() {
                "none" => AdvantageScale::None,
                "group" => AdvantageScale::Group,
                _ => AdvantageScale::Cap,
            },
            length_norm: match text("length_norm").as_str() {
                "sequence" => LengthNorm::Sequence,
                "constant" => LengthNorm::Constant,
                _ => LengthNorm::Token,
            },
            clip_high: value["clip_high"].as_f64().unwrap(),
            negative_floor: value["negative_floor"].as_f64().unwrap(),
            kl_coefficient: value["kl_coefficient"].as_f64().unwrap(),
            ..Knobs::default()
        }
    }

    #[test]
    fn losses_and_gradients_are_pytorchs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/objective/explicit.json");
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(cases.len() > 20);
        for case in cases {
            let (name, knobs, expected) = (&case["name"], knobs(&case["knobs"]), &case["expected"]);
            let mut start = Vec::new();
            let mut groups = Vec::new();
            for group in case["groups"].as_array().unwrap() {
                let mut responses = Vec::new();
                for r in group.as_array().unwrap() {
                    let tokens = numbers(&r["tokens"]).iter().map(|t| *t as u32).collect();
                    let recorded = r["recorded"]
                        .is_array()
                        .then(|| Recorded { logprobs: numbers(&r["recorded"]).iter().map(|q| *q as f32).collect(), staleness: 0 });
                    start.push(numbers(&r["start"]));
                    responses.push(Response { tokens, reward: r["reward"].as_f64().unwrap(), recorded });
                }
                groups.push(Group { prompt: vec![0], responses });
            }
            let close = |what: &str, x: f64, y: f64| assert!((x - y).abs() < 1e-10 * (1.0 + y.abs()), "{name} {what}: {x} {y}");
            let plan = Plan::new(&groups, &knobs);
            for (r, a) in plan.responses.iter().zip(numbers(&expected["advantages"])) {
                close("advantage", r.advantage, a);
            }
            let got = evaluate(&groups, &knobs, &tables(&case["logits"]), Some(&tables(&case["reference"])), &start);
            close("policy_loss", got.policy_loss, expected["policy_loss"].as_f64().unwrap());
            close("kl_loss", got.kl_loss, expected["kl_loss"].as_f64().unwrap());
            close("loss", got.loss, expected["loss"].as_f64().unwrap());
            close("step_scale", got.fade, expected["step_scale"].as_f64().unwrap());
            let pairs = got.dlogits.iter().flatten().flatten().copied();
            for (x, y) in pairs.zip(tables(&expected["dlogits"]).into_iter().flatten().flatten()) {
                close("dlogits", x, y);
            }
        }
    }
}
