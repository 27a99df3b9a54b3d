//! Whole training calls on the tiny golden Llama: what changes, what must not, and PyTorch's ten steps.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the report")]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use tiger_engine::train::job::Counts;
use tiger_engine::train::objective::{Plan, Sampled, token_loss};
use tiger_engine::train::{Advance, Job};
use tiger_engine::{
    BaseId, Baseline, Config, EngineError, Group, Knobs, LengthNorm, Mode, Objective, Outcome, Recorded, Response, StepMetrics, TrainEvent,
    TrainMetrics, TrainRequest,
};
use tiger_formats::safetensors::{TensorData, write};
use tiger_formats::{Checkpoint, Dtype, Module, SafeTensors, peft};
use tiger_kernels::Cpu;
use tiger_kernels::ops::adamw::{self, AdamW};
use tiger_kernels::ops::logprob::{RowScore, score_rows};
use tiger_model::{
    Adapter, AdapterGradients, AdapterState, Keep, Kv, Model, PageId, Precision, Segment, Step, Target, TokenWeights, TrainBatch,
    TrainPass, Workspace,
};
use tokio::sync::mpsc::unbounded_channel;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/objective")
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

/// One model for all tests of this file: 2 layers, hidden 32, vocabulary 64, f32.
static WORLD: LazyLock<(Cpu, Model)> = LazyLock::new(|| {
    let cpu = Cpu::new(1, None);
    let checkpoint = Checkpoint::open(&folder().join("tiny")).unwrap();
    let model = Model::load(&cpu, &checkpoint, Precision::F32, &mut |_| {}).unwrap();
    (cpu, model)
});

fn model() -> &'static Model {
    &WORLD.1
}

fn cpu() -> &'static Cpu {
    &WORLD.0
}

fn fresh() -> Adapter {
    Adapter::new(model().architecture(), 4, 8.0, 5)
}

/// The golden adapter, whose B is not zero.
fn golden_adapter() -> Adapter {
    let base = model().architecture();
    let file = peft::Adapter::from_bytes(&read("tiny/adapter_config.json"), &read("tiny/adapter_model.safetensors"), base).unwrap();
    Adapter::from_peft(base, &file).unwrap()
}

fn text(tokens: &[u32], reward: f64) -> Response {
    Response { tokens: tokens.to_vec(), reward, recorded: None }
}

fn groups() -> Vec<Group> {
    vec![
        Group { prompt: vec![3, 14, 15, 9], responses: vec![text(&[26, 5, 35], 1.0), text(&[8, 9], 0.0), text(&[7, 9, 3, 2, 38], -0.5)] },
        Group { prompt: vec![27, 18], responses: vec![text(&[28], 0.2), text(&[18, 28, 45], 0.9)] },
    ]
}

/// Prompts of 40 and 33 tokens, of which the responses share 32, and one that is too short to share.
fn sharing_groups() -> Vec<Group> {
    let tokens = |seed: u32, count: u32| (0..count).map(|i| (i * i * 5 + i * 11 + seed * 17) % 64).collect::<Vec<u32>>();
    let response = |(i, (count, reward)): (u32, (u32, f64))| text(&tokens(20 + i, count), reward);
    let group = |seed, prompt, responses: &[(u32, f64)]| Group {
        prompt: tokens(seed, prompt),
        responses: (seed * 10..).zip(responses.iter().copied()).map(response).collect(),
    };
    vec![
        group(1, 40, &[(9, 1.0), (1, 0.0), (20, -0.5), (4, 0.4)]),
        group(2, 16, &[(3, 0.2), (5, 0.9)]),
        group(3, 33, &[(7, 0.1), (12, 0.8)]),
    ]
}

fn request(adapter: Adapter, groups: Vec<Group>, knobs: Knobs) -> TrainRequest {
    TrainRequest {
        base: BaseId("tiny".into()),
        account: 1,
        state: AdapterState::new(adapter),
        reference: None,
        dropout: 0.0,
        groups,
        knobs,
    }
}

fn knobs() -> Knobs {
    Knobs { learning_rate: 1e-3, ..Knobs::default() }
}

struct Run {
    end: Result<Box<Outcome>, EngineError>,
    steps: Vec<StepMetrics>,
    counts: Counts,
}

impl Run {
    fn outcome(self) -> Outcome {
        *self.end.unwrap()
    }

    fn state(self) -> AdapterState {
        self.outcome().state.expect("weights changed")
    }
}

fn run_with(request: TrainRequest, config: &Config) -> Run {
    run_on(cpu(), request, config)
}

fn run_on(cpu: &Cpu, request: TrainRequest, config: &Config) -> Run {
    let (sender, mut events) = unbounded_channel();
    let mut job = Job::new(request, sender, config);
    for _ in 0..10_000 {
        if job.advance(model(), cpu) == Advance::Finished {
            break;
        }
    }
    assert_eq!(job.advance(model(), cpu), Advance::Finished, "and stays finished");
    let (mut steps, mut end) = (Vec::new(), None);
    while let Ok(event) = events.try_recv() {
        assert!(end.is_none(), "nothing follows the end");
        match event {
            TrainEvent::Progress { step, metrics, .. } => {
                assert_eq!(step as usize, steps.len() + 1);
                steps.extend(metrics);
            }
            TrainEvent::Done(outcome) => end = Some(Ok(outcome)),
            TrainEvent::Failed(error) => end = Some(Err(error)),
            TrainEvent::Info { .. } => {}
        }
    }
    Run { end: end.expect("every job ends"), steps, counts: job.counts() }
}

fn run(request: TrainRequest) -> Run {
    run_with(request, &Config::default())
}

/// (|x − y| summed, |y| summed) over the adapters' tensors.
fn distance(x: &Adapter, y: &Adapter) -> (f64, f64) {
    let pairs = || x.tensors().flatten().zip(y.tensors().flatten());
    (pairs().map(|(x, y)| f64::from((x - y).abs())).sum(), pairs().map(|(_, y)| f64::from(y.abs())).sum())
}

#[test]
fn equal_rewards_change_nothing() {
    let mut all = groups();
    all.iter_mut().flat_map(|g| &mut g.responses).for_each(|r| r.reward = 0.3);
    let run = run(request(golden_adapter(), all, knobs()));
    assert_eq!((run.counts.training_passes, run.counts.updates), (0, 0));
    let outcome = run.outcome();
    assert!(outcome.state.is_none() && !outcome.metrics.updated);
    assert_eq!(outcome.metrics.reason.as_deref(), Some("zero_advantage"));
    assert!(outcome.metrics.responses.iter().all(|r| r.logprob_before < -0.1 && r.logprob_after.is_none() && r.advantage == 0.0));
    assert!(outcome.metrics.warnings.iter().any(|w| w.starts_with("zero_advantage: groups 0, 1 have")));
    assert!(outcome.metrics.step.entropy > 0.0);
    // SFT has nothing to raise here.
    let alone = vec![Group { prompt: vec![1], responses: vec![text(&[2], -1.0)] }];
    let sft = self::run(request(golden_adapter(), alone, Knobs { objective: Objective::Sft, ..knobs() })).outcome();
    assert_eq!((sft.metrics.reason.as_deref(), sft.state), (Some("no_positive_advantage"), None));
}

#[test]
fn groups_without_spread_meet_the_kl_and_make_the_step_smaller() {
    let mut all = groups();
    all[1].responses.iter_mut().for_each(|r| r.reward = 0.3);
    let free = Knobs { kl_coefficient: 0.0, ..knobs() };
    let with = run(request(golden_adapter(), all.clone(), free.clone())).state();
    // Without the KL the flat group changes the normalisation, which Adam divides out (but for epsilon), and halves the step.
    all.truncate(1);
    let half = Knobs { learning_rate: free.learning_rate / 2.0, ..free };
    let without = run(request(golden_adapter(), all, half)).state();
    let (difference, _) = distance(&with.adapter, &without.adapter);
    let (moved, _) = distance(&with.adapter, &golden_adapter());
    assert!(moved > 0.0 && difference < 1e-2 * moved, "{difference} of {moved}");
}

#[test]
fn dry_run_reports_and_changes_nothing() {
    let dry = run(request(golden_adapter(), groups(), Knobs { dry_run: true, evaluate: false, ..knobs() })).outcome();
    assert_eq!((dry.metrics.updated, dry.metrics.reason.as_deref(), dry.metrics.steps), (false, Some("dry_run"), 0));
    assert!(dry.state.is_none() && dry.metrics.kl_moved.is_none());
    let real = run(request(golden_adapter(), groups(), knobs())).outcome();
    assert_eq!(dry.metrics.step, real.metrics.step);
    assert!(real.metrics.step.grad_norm > 0.0 && real.metrics.updated && real.metrics.reason.is_none());
    let first = &real.metrics.responses[0];
    assert_eq!((first.tokens, first.mode, first.group), (3, Mode::Text, 0));
    assert!(first.logprob_after.unwrap() > first.logprob_before, "the rewarded response became more probable");
    assert!(real.metrics.responses[2].logprob_after.unwrap() < real.metrics.responses[2].logprob_before);
    assert_eq!((real.metrics.trained_tokens, real.metrics.input_tokens), (14, 16));
}

/// With `evaluate` the steps are taken on a copy: the answer is that of the real call but for what it changed.
#[test]
fn a_dry_run_predicts_the_change() {
    let steps = Knobs { steps: 3, target_kl: 1e9, ..knobs() };
    let real = run(request(golden_adapter(), groups(), steps.clone())).outcome();
    let dry = run(request(golden_adapter(), groups(), Knobs { dry_run: true, ..steps })).outcome();
    assert!(dry.state.is_none() && real.state.is_some());
    assert!(real.metrics.kl_moved.unwrap() > 0.0 && real.metrics.entropy_after.unwrap() != real.metrics.step.entropy);
    let predicted = TrainMetrics { updated: true, reason: None, ..dry.metrics };
    assert_eq!(predicted, real.metrics);
}

/// Weights and moments after the call, scored by a second one, are what `evaluate` said.
#[test]
fn evaluate_says_what_the_next_call_finds() {
    let first = run(request(golden_adapter(), groups(), knobs())).outcome();
    let look = Knobs { dry_run: true, evaluate: false, ..knobs() };
    let next = run(TrainRequest { state: first.state.unwrap(), ..request(golden_adapter(), groups(), look) }).outcome();
    for (before, after) in first.metrics.responses.iter().zip(&next.metrics.responses) {
        assert_eq!(before.logprob_after, Some(after.logprob_before));
    }
    assert_eq!(first.metrics.entropy_after, Some(next.metrics.step.entropy));
}

#[test]
fn a_call_that_does_too_much_is_told_so() {
    let wild = run(request(golden_adapter(), groups(), Knobs { learning_rate: 0.5, ..knobs() })).outcome();
    assert!(wild.metrics.kl_moved.unwrap() > 0.1);
    assert!(wild.metrics.warnings.iter().any(|w| w.starts_with("moved_far: ")), "{:?}", wild.metrics.warnings);
}

#[test]
fn same_seed_same_bytes_and_dropout_acts() {
    let train = |seed, dropout| {
        let mut request = request(golden_adapter(), groups(), Knobs { seed, steps: 3, target_kl: 1e9, ..knobs() });
        request.dropout = dropout;
        let run = run_with(request, &Config { micro_batch_tokens: 8, ..Config::default() });
        run.state()
    };
    assert_eq!(train(1, 0.3), train(1, 0.3));
    assert_ne!(train(1, 0.3), train(2, 0.3));
    assert_eq!(train(1, 0.0), train(2, 0.0), "without dropout there is nothing random");
    assert_ne!(train(1, 0.3), train(1, 0.0));
}

#[test]
fn responses_to_one_prompt_compute_it_once() {
    let train = |threads, micro_batch_tokens, activation_bytes| {
        let config = Config { micro_batch_tokens, activation_bytes, ..Config::default() };
        let knobs = Knobs { steps: 2, target_kl: 1e9, ..knobs() };
        let run = run_on(&Cpu::new(threads, None), request(golden_adapter(), sharing_groups(), knobs), &config);
        (run.counts, run.steps.clone(), run.state())
    };
    let (counts, steps, state) = train(1, 10_000, u64::MAX);
    // 32 of each prompt once, and each response's own; two steps.
    let own = [8 + 8, 8, 8 + 19, 8 + 3, 15 + 3, 15 + 5, 1 + 6, 1 + 11].iter().sum::<usize>();
    assert_eq!((counts.training_passes, counts.training_rows), (2, 2 * (32 + own + 32)));
    // Twice from one seed, on any number of threads, with layers computed again.
    for (threads, bytes) in [(1, u64::MAX), (2, u64::MAX), (3, 0)] {
        assert_eq!(train(threads, 10_000, bytes).2, state, "{threads} threads, {bytes} bytes");
    }
    // In more micro-batches each has the prompt again: as many rows as it has may follow, here 32.
    let (counts, split_steps, _) = train(1, 1, u64::MAX);
    let batches = [32 + 16 + 8, 32 + 27, 32 + 11, 18, 20, 32 + 7 + 12];
    assert_eq!((counts.training_passes, counts.training_rows), (2 * batches.len(), 2 * batches.iter().sum::<usize>()));
    assert!((split_steps[0].loss - steps[0].loss).abs() < 1e-12, "the rows are the same rows");
    assert!((split_steps[0].grad_norm / steps[0].grad_norm - 1.0).abs() < 1e-5);
}

#[test]
fn not_finite_is_divergence_and_nothing_leaves() {
    for poison in [f32::NAN, f32::INFINITY, 1e38] {
        let mut adapter = golden_adapter();
        adapter.pair_mut(1, Module::Gate).b.fill(poison);
        let end = run(request(adapter, groups(), knobs())).end;
        assert!(matches!(&end, Err(EngineError::Diverged(why)) if why.contains("nothing was changed")), "{end:?}");
    }
    // In the optimizer's state: the check after the step catches it.
    let mut bad = request(golden_adapter(), groups(), knobs());
    bad.state.moments.first[0][0] = f32::NAN;
    assert!(matches!(run(bad).end, Err(EngineError::Diverged(_))));
}

#[test]
fn first_step_from_zero_changes_b_alone() {
    let start = fresh();
    let run = run(request(start.clone(), groups(), knobs()));
    assert_eq!(run.steps[0].kl_parent, 0.0, "a fresh adapter is its parent");
    let after = run.state();
    for layer in 0..2 {
        for module in Module::ALL {
            let (old, new) = (start.pair(layer, module), after.adapter.pair(layer, module));
            assert_eq!(old.a, new.a, "layer {layer} {module:?}");
            assert!(old.b.iter().zip(&new.b).any(|(x, y)| x != y), "layer {layer} {module:?}");
        }
    }
    assert_eq!(after.moments.step, 1);
}

#[test]
fn kl_zero_skips_the_parent_and_own_parent_is_no_distance() {
    let small = Config { micro_batch_tokens: 1, ..Config::default() };
    let two = Knobs { steps: 2, target_kl: 1e9, ..knobs() };
    let free = run_with(request(golden_adapter(), groups(), Knobs { kl_coefficient: 0.0, ..two.clone() }), &small);
    assert_eq!((free.counts.reference_forwards, free.counts.training_passes, free.counts.scoring_forwards), (0, 10, 5));
    let bound = run_with(request(golden_adapter(), groups(), two.clone()), &small);
    assert_eq!((bound.counts.reference_forwards, bound.counts.training_passes), (5, 10), "the parent never changes");
    let forgetful = run_with(request(golden_adapter(), groups(), two.clone()), &Config { activation_bytes: 0, ..small });
    assert_eq!((forgetful.counts.reference_forwards, forgetful.counts.training_passes), (10, 10));
    assert_eq!(forgetful.steps, bound.steps);
    assert!(bound.steps.iter().all(|s| s.kl_parent > 0.0 && s.kl_loss > 0.0));
    let mut own = request(golden_adapter(), groups(), two);
    own.reference = Some(Arc::new(golden_adapter()));
    let own = run(own);
    assert_eq!(own.steps[0].kl_parent, 0.0);
    assert!(own.steps[1].kl_parent > 0.0);
}

#[test]
fn one_by_one_is_packed_and_checkpointing_is_not() {
    let train = |micro_batch_tokens, activation_bytes| {
        let config = Config { micro_batch_tokens, activation_bytes, ..Config::default() };
        let knobs = Knobs { length_norm: LengthNorm::Sequence, ..knobs() };
        let run = run_with(request(golden_adapter(), groups(), knobs), &config);
        (run.steps[0].clone(), run.counts.training_passes, run.state())
    };
    let (packed, one, state) = train(10_000, u64::MAX);
    let (alone, five, state_alone) = train(1, u64::MAX);
    assert_eq!((one, five), (1, 5));
    assert!((packed.loss - alone.loss).abs() < 1e-12, "the rows are the same rows");
    assert!((packed.grad_norm / alone.grad_norm - 1.0).abs() < 1e-5);
    let gradients = |s: &AdapterState| s.moments.first.concat();
    let scale = gradients(&state).iter().fold(0.0f32, |m, g| m.max(g.abs()));
    assert!(gradients(&state).iter().zip(gradients(&state_alone)).all(|(x, y)| (x - y).abs() < 1e-5 * scale));
    let (_, _, recomputed) = train(10_000, 0);
    assert_eq!(state, recomputed, "recomputing layers changes no bit");
}

#[test]
fn gradient_is_that_of_the_loss_through_the_model() {
    check_gradient(groups());
    check_gradient(sharing_groups());
}

fn check_gradient(mut all: Vec<Group>) {
    // The first moment after one step from zero is 0.1 of the gradient.
    let first = &mut all[0].responses[0];
    first.recorded = Some(Recorded { logprobs: first.tokens.iter().map(|t| -2.5 - (t % 3) as f32 / 2.0).collect(), staleness: 0 });
    let wide = Knobs { max_grad_norm: 1e9, kl_coefficient: 0.5, evaluate: false, ..knobs() };
    let start = golden_adapter();
    let gradient = run(request(start.clone(), all.clone(), wide.clone())).state().moments.first;
    let loss = |adapter: &Adapter| {
        let dry = Knobs { dry_run: true, ..wide.clone() };
        run(request(adapter.clone(), all.clone(), dry)).outcome().metrics.step.loss
    };
    let largest = gradient.iter().flatten().fold(0.0f32, |m, g| m.max(g.abs())) * 10.0;
    let mut checked = 0;
    for (index, tensor) in gradient.iter().enumerate() {
        // Every tensor at its strongest entry and at one more.
        let strongest = (0..tensor.len()).max_by(|i, j| tensor[*i].abs().total_cmp(&tensor[*j].abs())).unwrap();
        for entry in [strongest, tensor.len() * 2 / 3] {
            const H: f32 = 4e-3;
            let shifted = |by: f32| {
                let mut adapter = start.clone();
                adapter.tensors_mut().nth(index).unwrap()[entry] += by;
                loss(&adapter)
            };
            if index % 2 == 0 && entry % 16 >= start.rank() {
                assert_eq!(tensor[entry], 0.0, "padding of A");
                continue;
            }
            let difference = (shifted(H) - shifted(-H)) / (2.0 * f64::from(H));
            let got = f64::from(tensor[entry]) * 10.0;
            assert!(
                (difference - got).abs() < 2e-3 * f64::from(largest),
                "tensor {index} entry {entry}: {difference} {got}, largest {largest}"
            );
            checked += 1;
        }
    }
    assert!(checked >= 28, "{checked}");
}

#[test]
fn drift_stops_the_steps() {
    let run = run(request(golden_adapter(), groups(), Knobs { steps: 16, learning_rate: 1e-2, target_kl: 0.05, ..knobs() }));
    let steps = run.steps.len();
    let metrics = run.outcome().metrics;
    assert!(steps > 0 && steps < 16 && metrics.steps as usize == steps && metrics.updated);
    assert!(metrics.warnings.iter().any(|w| w.starts_with("stopped_early")));
    assert!(metrics.responses.iter().all(|r| r.logprob_after.is_some()));
}

#[test]
fn hang_up_cancels_at_the_next_border() {
    let (sender, events) = unbounded_channel();
    let config = Config { micro_batch_tokens: 1, ..Config::default() };
    let mut job = Job::new(request(golden_adapter(), groups(), knobs()), sender, &config);
    for _ in 0..3 {
        assert_eq!(job.advance(model(), cpu()), Advance::Working);
    }
    let passes = job.counts().training_passes;
    assert!(passes > 0);
    drop(events);
    assert_eq!(job.advance(model(), cpu()), Advance::Finished);
    assert_eq!((job.counts().training_passes, job.counts().updates), (passes, 0));
}

#[test]
fn what_does_not_fit_the_model_is_refused() {
    let mut unknown = groups();
    unknown[1].responses[0].tokens[0] = 64;
    let mut long = groups();
    long[0].prompt = vec![1; 127];
    let mut wrong = groups();
    wrong[0].responses[1].reward = f64::NAN;
    for (groups, part) in [(unknown, "token 64"), (long, "context is 128"), (wrong, "batch[0].responses[1].reward")] {
        let run = run(request(golden_adapter(), groups, knobs()));
        assert_eq!(run.counts, Counts::default());
        assert!(matches!(&run.end, Err(EngineError::Invalid(why)) if why.contains(part)), "{:?}", run.end);
    }
}

#[test]
fn warnings_say_what_to_do() {
    let mut stale = Response { recorded: Some(Recorded { logprobs: vec![-0.5], staleness: 30 }), ..text(&[9], 1.0) };
    let alone = Group { prompt: vec![1, 2], responses: vec![stale.clone()] };
    stale.reward = 0.0;
    stale.recorded = None;
    let pair = Group { prompt: vec![1, 2], responses: vec![text(&[8], 1.0), stale] };
    let warnings =
        run(request(golden_adapter(), vec![alone, pair], Knobs { objective: Objective::Ppo, ..knobs() })).outcome().metrics.warnings;
    for name in ["single_response_no_baseline: group 0 has", "stale_samples: 1 of 3", "text_without_record"] {
        assert!(warnings.iter().any(|w| w.starts_with(name)), "{name}: {warnings:?}");
    }
    assert!(run(request(golden_adapter(), groups(), knobs())).outcome().metrics.warnings.iter().all(|w| w.starts_with("push_faded")));
}

/// Samples greedily token by token through the paged decoder; returns tokens and their log-probs.
fn decode(adapter: &Adapter, prompt: &[u32], count: usize) -> (Vec<u32>, Vec<f32>) {
    let (model, v) = (model(), model().architecture().vocab);
    let mut kv = Kv::new(model, 4);
    let pages: Vec<PageId> = (0..4).map(PageId).collect();
    let mut workspace = Workspace::default();
    let (mut tokens, mut logprobs, mut logits) = (prompt.to_vec(), Vec::new(), Vec::new());
    let mut done = 0;
    for step in 0..count {
        let rows = tokens.len() - done;
        let segments = [Segment { rows: 0..rows, start: done, pages: &pages, adapter: Some(adapter) }];
        let hidden =
            model.forward(cpu(), &mut kv, &Step { tokens: &tokens[done..], segments: &segments, outputs: &[rows - 1] }, &mut workspace);
        done = tokens.len();
        model.logits(cpu(), &hidden, &mut logits);
        // Not the best token: any will do, and others tell more.
        let token = ((step * 23 + 5) % v) as u32;
        let mut score = [RowScore::default()];
        score_rows(cpu(), &logits, v, &[token], &mut score);
        tokens.push(token);
        logprobs.push(score[0].logprob);
    }
    (tokens.split_off(prompt.len()), logprobs)
}

#[test]
fn trained_log_probs_are_the_sampled_ones_bit_for_bit() {
    let adapter = golden_adapter();
    // The last is long enough for its responses to share.
    let long: Vec<u32> = (0..40).map(|i| (i * 13 + 7) % 64).collect();
    let prompts: [&[u32]; 3] = [&[3, 14, 15, 9, 2, 6], &[5, 35], &long];
    let mut all = Vec::new();
    for prompt in prompts {
        let responses = [7, 19].map(|count| {
            let (tokens, logprobs) = decode(&adapter, prompt, count);
            Response { tokens, reward: count as f64, recorded: Some(Recorded { logprobs, staleness: 0 }) }
        });
        all.push(Group { prompt: prompt.to_vec(), responses: responses.to_vec() });
    }
    let metrics = run(request(adapter, all.clone(), Knobs { dry_run: true, ..knobs() })).outcome().metrics;
    assert_eq!((metrics.step.kl_sampler, metrics.step.ratio_mean, metrics.step.ratio_max), (0.0, 1.0, 1.0));
    // Nothing has faded; six responses are not yet eight.
    assert_eq!(metrics.step.step_scale, (6.0f64 / 8.0).sqrt());
    for (r, response) in metrics.responses.iter().zip(all.iter().flat_map(|g| &g.responses)) {
        let recorded: f64 = response.recorded.as_ref().unwrap().logprobs.iter().map(|l| f64::from(*l)).sum();
        assert_eq!(r.logprob_before, recorded);
    }
}

/// Training rows of one sequence, every position a target.
fn batch(tokens: &[u32]) -> TrainBatch {
    let targets = (1..tokens.len()).map(|i| Target { row: i - 1, token: tokens[i] }).collect();
    let mut batch = TrainBatch { targets, ..TrainBatch::default() };
    batch.push(tokens[..tokens.len() - 1].iter().copied());
    batch
}

fn logits_of(model: &Model, adapter: Option<&Adapter>, tokens: &[u32]) -> Vec<f32> {
    let batch = batch(tokens);
    let pass = TrainPass { model, cpu: cpu(), batch: &batch, adapter, dropout: None };
    let hidden = pass.forward(Keep::Nothing, &mut Workspace::default()).hidden;
    let mut logits = Vec::new();
    model.logits(cpu(), &hidden, &mut logits);
    logits
}

#[test]
fn merged_weights_answer_as_the_adapter() {
    let adapter = golden_adapter();
    let file = adapter.to_peft();
    let weights = SafeTensors::from_bytes("model.safetensors", read("tiny/model.safetensors")).unwrap();
    let mut parts = Vec::new();
    for (name, view) in weights.iter() {
        let mut values = view.to_f32().unwrap();
        for ((layer, module), pair) in &file.tensors {
            if name == format!("model.layers.{layer}.{}.weight", module.path()) {
                let k = view.shape[1];
                for (i, w) in values.iter_mut().enumerate() {
                    let (n, k_index) = (i / k, i % k);
                    let ba: f32 = (0..file.rank).map(|r| pair.b[n * file.rank + r] * pair.a[r * k + k_index]).sum();
                    *w += adapter.scale() * ba;
                }
            }
        }
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        parts.push((name.to_owned(), view.shape.to_vec(), bytes));
    }
    let tensors: Vec<TensorData<'_>> = parts
        .iter()
        .map(|(name, shape, bytes)| TensorData { name: name.clone(), dtype: Dtype::F32, shape: shape.clone(), bytes })
        .collect();
    let mut merged = Vec::new();
    write(&mut merged, &tensors, &Default::default()).unwrap();
    let checkpoint = Checkpoint::from_bytes(&read("tiny/config.json"), merged).unwrap();
    let merged = Model::load(cpu(), &checkpoint, Precision::F32, &mut |_| {}).unwrap();
    let tokens: Vec<u32> = (0..20).map(|i| (i * 13 + 4) % 64).collect();
    let with = logits_of(model(), Some(&adapter), &tokens);
    let bare = logits_of(model(), None, &tokens);
    let merged = logits_of(&merged, None, &tokens);
    let gap = |x: &[f32], y: &[f32]| x.iter().zip(y).fold(0.0f32, |m, (x, y)| m.max((x - y).abs()));
    assert!(gap(&with, &bare) > 0.05, "the adapter acts");
    assert!(gap(&with, &merged) < 1e-4, "{}", gap(&with, &merged));
}

/// Mean KL(parent ‖ policy) on text that no training has seen.
fn harm(adapter: &Adapter) -> f64 {
    let tokens: Vec<u32> = (0..30).map(|i| (i * 29 + 11) % 64).collect();
    let (p, q) = (logits_of(model(), None, &tokens), logits_of(model(), Some(adapter), &tokens));
    let log_softmax = |row: &[f32]| tiger_engine::train::reference::log_softmax(&row.iter().map(|z| f64::from(*z)).collect::<Vec<_>>());
    let kl = |(p, q): (&[f32], &[f32])| log_softmax(p).iter().zip(log_softmax(q)).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
    p.chunks(64).zip(q.chunks(64)).map(kl).sum::<f64>() / 29.0
}

#[test]
fn repeated_punishment_does_not_destroy_the_model() {
    let prompt = vec![3, 14, 15, 9];
    let tokens = vec![26, 5, 35, 8];
    let whole = [prompt.clone(), tokens.clone()].concat();
    let scores = |adapter: &Adapter, workspace: &mut Workspace| {
        let mut batch = batch(&whole);
        batch.targets.drain(..prompt.len() - 1);
        let pass = TrainPass { model: model(), cpu: cpu(), batch: &batch, adapter: Some(adapter), dropout: None };
        let saved = pass.forward(Keep::All, workspace);
        let scores = model().score(cpu(), &saved.hidden, &batch.targets, workspace);
        (batch, saved, scores)
    };
    let mut workspace = Workspace::default();
    let start = fresh();
    let recorded: Vec<f32> = scores(&start, &mut workspace).2.iter().map(|s| s.logprob).collect();
    let response = Response { tokens, reward: -1.0, recorded: Some(Recorded { logprobs: recorded.clone(), staleness: 0 }) };
    let all = vec![Group { prompt: prompt.clone(), responses: vec![response] }];
    // One response takes √(1/8) of the rate; without a baseline nothing but the fade stands between.
    let learning_rate = 5e-3 * 8.0f64.sqrt();
    let knobs = Knobs { kl_coefficient: 0.0, learning_rate, baseline: Baseline::None, evaluate: false, ..Knobs::default() };
    const CALLS: usize = 150;
    // As it is: the step fades with the loss.
    let mut state = AdapterState::new(start.clone());
    for _ in 0..CALLS {
        let mut call = request(state.adapter.clone(), all.clone(), knobs.clone());
        call.state = state;
        state = run(call).state();
    }
    // The same loss under plain AdamW, which scales the faded gradient back to whole steps.
    let plan = Plan::new(&all, &knobs);
    let mut plain = AdapterState::new(start);
    for step in 1..=CALLS as u64 {
        let (batch, saved, _) = scores(&plain.adapter, &mut workspace);
        let weight = |(s, q): (&RowScore, &f32)| {
            token_loss(&knobs, &plan.responses[0], f64::from(s.logprob), Sampled::Recorded(f64::from(*q))).coefficient as f32
        };
        let mut weigh = |part: std::ops::Range<usize>, scores: &[RowScore]| {
            let coefficients = scores.iter().zip(&recorded[part]).map(weight).collect();
            Ok::<_, std::convert::Infallible>(TokenWeights { coefficients, kl: Vec::new() })
        };
        let pass = TrainPass { model: model(), cpu: cpu(), batch: &batch, adapter: Some(&plain.adapter), dropout: None };
        let mut gradients = AdapterGradients::zeros(&plain.adapter);
        let Ok(head) = pass.head(&saved, None, &mut weigh, &mut workspace);
        pass.backward(saved, &head, &mut gradients, &mut workspace);
        let options = AdamW { lr: 5e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.0, step };
        let moments = plain.moments.first.iter_mut().zip(&mut plain.moments.second);
        for ((p, (m, v)), g) in plain.adapter.tensors_mut().zip(moments).zip(gradients.tensors()) {
            adamw::adamw(cpu(), adamw::Moments { p, m, v }, g, 1.0, &options);
        }
    }
    let (bounded, unbounded) = (harm(&state.adapter), harm(&plain.adapter));
    let last: f32 = scores(&state.adapter, &mut workspace).2.iter().map(|s| s.logprob).sum();
    println!("harm bounded {bounded:.4}, plain AdamW {unbounded:.4}; log-prob {} → {last}", recorded.iter().sum::<f32>());
    assert!(last < recorded.iter().sum::<f32>() - 3.0, "the punishment is learnt");
    assert!(bounded < unbounded / 3.0, "{bounded} against {unbounded}");
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    numbers(value).iter().map(|x| *x as u32).collect()
}

fn golden_request(case: &Value) -> TrainRequest {
    let response = |r: &Value| Response {
        tokens: ids(&r["tokens"]),
        reward: r["reward"].as_f64().unwrap(),
        recorded: r["recorded"]
            .is_array()
            .then(|| Recorded { logprobs: numbers(&r["recorded"]).iter().map(|q| *q as f32).collect(), staleness: 0 }),
    };
    let group = |(prompt, group): (&Value, &Value)| Group {
        prompt: ids(prompt),
        responses: group.as_array().unwrap().iter().map(response).collect(),
    };
    let groups = case["prompts"].as_array().unwrap().iter().zip(case["groups"].as_array().unwrap()).map(group).collect();
    let knobs = Knobs {
        learning_rate: case["learning_rate"].as_f64().unwrap(),
        steps: 10,
        target_kl: f64::INFINITY,
        kl_coefficient: case["knobs"]["kl_coefficient"].as_f64().unwrap(),
        length_norm: if case["knobs"]["length_norm"] == "sequence" { LengthNorm::Sequence } else { LengthNorm::Token },
        objective: if case["knobs"]["objective"] == "ppo" { Objective::Ppo } else { Objective::Tapered },
        max_grad_norm: case["max_grad_norm"].as_f64().unwrap(),
        ..Knobs::default()
    };
    request(golden_adapter(), groups, knobs)
}

#[test]
fn ten_steps_are_pytorchs() {
    const RELATIVE: f64 = 1e-3;
    let cases: Vec<Value> = serde_json::from_slice(&read("curves.json")).unwrap();
    assert_eq!(cases.len(), 4);
    for case in &cases {
        let run = run(golden_request(case));
        let name = &case["name"];
        let close = |what: &str, x: f64, y: f64| assert!((x - y).abs() <= RELATIVE * y.abs() + 1e-5, "{name} {what}: {x}, PyTorch {y}");
        assert_eq!(run.steps.len(), 10);
        for (i, (got, want)) in run.steps.iter().zip(case["steps"].as_array().unwrap()).enumerate() {
            let want = |field: &str| want[field].as_f64().unwrap();
            close(&format!("step {i} loss"), got.loss, want("loss"));
            close(&format!("step {i} policy_loss"), got.policy_loss, want("policy_loss"));
            close(&format!("step {i} grad_norm"), got.grad_norm, want("grad_norm"));
            close(&format!("step {i} entropy"), got.entropy, want("entropy"));
            close(&format!("step {i} kl_sampler"), got.kl_sampler, want("kl_sampler"));
            close(&format!("step {i} step_scale"), got.step_scale, want("step_scale"));
            if case["knobs"]["kl_coefficient"].as_f64().unwrap() > 0.0 {
                close(&format!("step {i} kl_loss"), got.kl_loss, want("kl_loss"));
                close(&format!("step {i} kl_parent"), got.kl_parent, want("kl_parent"));
            }
        }
        let metrics = run.outcome().metrics;
        for (i, r) in metrics.responses.iter().enumerate() {
            close(&format!("response {i} before"), r.logprob_before, numbers(&case["logprob_before"])[i]);
            close(&format!("response {i} after"), r.logprob_after.unwrap(), numbers(&case["logprob_after"])[i]);
        }
    }
}

/// Far from the parent the model is not trained any further; nothing of it changes, and the caller is told what to do.
#[test]
fn a_model_far_from_its_parent_stops() {
    let mut state = AdapterState::new(golden_adapter());
    let mut sampled = groups();
    for response in sampled.iter_mut().flat_map(|g| &mut g.responses) {
        response.recorded = Some(Recorded { logprobs: vec![-4.0; response.tokens.len()], staleness: 0 });
    }
    let call = |state: &AdapterState, knobs: Knobs| {
        let mut request = request(state.adapter.clone(), sampled.clone(), knobs);
        request.state = state.clone();
        run(request).outcome()
    };
    let first = call(&state, knobs());
    assert!(first.metrics.step.kl_parent > 0.0, "the golden adapter has moved");
    state = first.state.expect("weights changed");
    let far = state.record.kl;
    assert!(far > 0.0 && state.record.reward == 0.0);
    let stopped = call(&state, Knobs { kl_limit: far / 2.0, ..knobs() });
    assert_eq!((stopped.metrics.updated, stopped.metrics.reason.as_deref()), (false, Some("far_from_parent")));
    assert!(stopped.state.is_none() && stopped.metrics.responses.iter().all(|r| r.logprob_before < 0.0));
    assert!(stopped.metrics.warnings.iter().any(|w| w.starts_with("too_far_from_parent: ") && w.contains("roll back")));
    let on = call(&state, Knobs { kl_limit: far * 2.0, ..knobs() });
    assert!(on.state.expect("weights changed").record.kl > far, "the mean is still on its way up from 0");
    // What is said of written texts is no measure.
    let mut request = request(state.adapter.clone(), groups(), knobs());
    request.state = state;
    assert_eq!(run(request).state().record.kl, far);
}

/// The rewards of single samples are remembered, so that punishment that always comes ends by itself.
#[test]
fn endless_punishment_of_single_samples_ends() {
    let mut state = AdapterState::new(golden_adapter());
    let mut advantages = Vec::new();
    for seed in 0..30 {
        let (tokens, logprobs) = decode(&state.adapter, &[3, 14, 15, 9], 3 + seed % 4);
        let response = Response { tokens, reward: -1.0, recorded: Some(Recorded { logprobs, staleness: 0 }) };
        let mut request = request(state.adapter.clone(), vec![Group { prompt: vec![3, 14, 15, 9], responses: vec![response] }], knobs());
        request.state = state;
        let outcome = run(request).outcome();
        advantages.push(outcome.metrics.responses[0].advantage);
        state = outcome.state.expect("weights changed");
    }
    assert!(advantages[0] == -1.0 && advantages.is_sorted() && advantages[29] > -0.05, "{advantages:?}");
    assert!(state.record.reward < -0.95);
}
