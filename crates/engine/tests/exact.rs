//! Invariant 10: the same request gives the same bytes alone and in any company. Tokens and the bits of log-probs are compared.
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

mod common;

use std::sync::Arc;

use common::*;
use tiger_engine::{Config, GenerateRequest, Group, Handle, Knobs, Recorded, Response, Sampling, Speculation, TrainEvent, TrainRequest};
use tiger_formats::Architecture;
use tiger_model::{AdapterState, KvType, Model, Precision};

/// The request that is watched: 75 tokens of prompt, so that prefixes, chunks and partly filled pages all occur.
fn watched() -> GenerateRequest {
    let mut watched = request(prompt(75, 1));
    watched.adapter = Some(adapter_id(1));
    watched.max_tokens = 24;
    watched
}

fn alone(precision: Precision) -> Collected {
    alone_on(FakeSource::new(precision))
}

fn alone_on(source: FakeSource) -> Collected {
    // Without drafts; everything it is compared with has them.
    let config = Config { speculation: Speculation::Off, ..config() };
    let (_engine, handle) = start(config, Arc::new(source));
    let answer = ask(&handle, watched());
    assert_eq!(answer.answers[&0].tokens.len(), 24);
    answer
}

fn others(handle: &Handle, count: usize) -> Vec<tiger_engine::Generation> {
    let other = |i: usize| {
        let mut other = request(prompt(5 + i * 7, 50 + i as u32));
        other.adapter = [None, Some(adapter_id(1)), Some(adapter_id(2)), Some(adapter_id(3))][i % 4];
        other.account = i as u64 % 5;
        other.max_tokens = 40;
        other.samples = 1 + u32::from(i.is_multiple_of(9));
        other.sampling =
            Sampling { temperature: 0.5 + i as f32 / 16.0, top_p: 0.9, top_k: (i as u32 % 3) * 20, min_p: 0.0, seed: i as u64 };
        handle.generate(other).unwrap()
    };
    (0..count).map(other).collect()
}

#[test]
fn among_others_with_other_adapters() {
    for (precision, kv_type, qk_norm) in [
        (Precision::F32, KvType::F32, false),
        (Precision::Bf16, KvType::Bf16, false),
        (Precision::Bf16, KvType::Bf16, true),
        (Precision::Bf16, KvType::Int8, false),
        (Precision::Int8, KvType::Bf16, false),
        (Precision::Int4, KvType::Int8, true),
    ] {
        let source = || FakeSource::of(model_of(&Architecture { qk_norm, ..architecture() }, precision, kv_type));
        let expected = alone_on(source());
        let (_engine, handle) = start(config(), Arc::new(source()));
        let mut company = others(&handle, 31);
        let answer = handle.generate(watched()).unwrap();
        assert_eq!(collect(answer).answers, expected.answers, "{precision:?}, {kv_type:?}, {qk_norm}");
        company.drain(..).for_each(|other| assert_eq!(collect(other).error, None));
        check(&handle);
    }
}

#[test]
fn after_a_prefix_hit() {
    let expected = alone(Precision::Bf16);
    let (_engine, handle) = engine(config());
    for cached in [0, 64] {
        let answer = ask(&handle, watched());
        assert_eq!(answer.cached, cached);
        assert_eq!(answer.answers, expected.answers);
    }
    // A chat that grew: the answer's own pages are found too.
    let longer = || {
        let mut longer = watched();
        longer.prompt.extend(expected.ids(0));
        longer
    };
    let answer = ask(&handle, longer());
    assert_eq!(answer.cached, 96);
    let (_fresh_engine, fresh) = engine(config());
    assert_eq!(ask(&fresh, longer()).answers, answer.answers);
    // Another adapter shares nothing.
    let mut other = watched();
    other.adapter = Some(adapter_id(2));
    let answer = ask(&handle, other);
    assert_eq!(answer.cached, 0);
    assert_ne!(answer.answers, expected.answers);
}

#[test]
fn in_small_chunks() {
    let expected = alone(Precision::Bf16);
    for step_tokens in [1, 3, 16, 17] {
        let (_engine, handle) = engine(Config { step_tokens, ..config() });
        let company = others(&handle, 5);
        assert_eq!(ask(&handle, watched()).answers, expected.answers, "{step_tokens} rows a step");
        company.into_iter().for_each(|other| assert_eq!(collect(other).error, None));
    }
}

#[test]
fn after_preemption() {
    let watched = || GenerateRequest { adapter: None, ..watched() };
    let older = || GenerateRequest { max_tokens: 100, ..request(prompt(49, 8)) };
    let (_roomy_engine, roomy) = engine(config());
    let (expected, expected_older) = (ask(&roomy, watched()), ask(&roomy, older()));
    let source = Arc::new(FakeSource::new(Precision::Bf16));
    source.open(false);
    // Ten pages: the two begin with nine and grow to seventeen together.
    let (_engine, handle) = start(Config { kv_bytes: pages(&source, 10), ..config() }, source.clone());
    let (first, second) = (handle.generate(older()).unwrap(), handle.generate(watched()).unwrap());
    source.open(true);
    assert_eq!(collect(second).answers, expected.answers);
    assert_eq!(collect(first).answers, expected_older.answers);
    check(&handle);
    let status = handle.status();
    assert!(status.prompt_tokens > 75 + 49, "nothing was computed twice: {status:?}");
}

#[test]
fn samples_do_not_depend_on_their_number() {
    for len in [64, 75] {
        let mut many = watched();
        many.prompt = prompt(len, 4);
        many.samples = 6;
        let (_engine, handle) = engine(config());
        let six = ask(&handle, many);
        check(&handle);
        for i in 1..6 {
            assert_ne!(six.answers[&0], six.answers[&i], "samples are independent");
        }
        // Sample i among fewer samples, with too few places, and with too few pages: always the same stream.
        let source = Arc::new(FakeSource::new(Precision::Bf16));
        let tight = Config { kv_bytes: pages(&source, 9), ..config() };
        for (config, samples) in [(config(), 1), (config(), 3), (Config { max_sequences: 2, ..config() }, 6), (tight, 6)] {
            let (_engine, handle) = engine(config);
            let mut request = watched();
            request.prompt = prompt(len, 4);
            request.samples = samples;
            let fewer = ask(&handle, request);
            assert_eq!(fewer.answers.len(), samples as usize);
            for (i, answer) in &fewer.answers {
                assert_eq!(*answer, six.answers[i], "sample {i} of {samples}");
            }
            check(&handle);
        }
    }
}

fn training(state: AdapterState, answers: &Collected, rewards: [f64; 2]) -> TrainRequest {
    let response = |sample: u32, reward: f64| Response {
        tokens: answers.ids(sample),
        reward,
        recorded: Some(Recorded {
            logprobs: answers.answers[&sample].tokens.iter().map(|(_, bits)| f32::from_bits(*bits)).collect(),
            staleness: 0,
        }),
    };
    TrainRequest {
        base: base("tiny"),
        account: 1,
        state,
        reference: None,
        dropout: 0.0,
        groups: vec![Group { prompt: watched().prompt, responses: vec![response(0, rewards[0]), response(1, rewards[1])] }],
        knobs: Knobs { steps: 8, target_kl: 1e9, learning_rate: 1e-4, ..Knobs::default() },
    }
}

fn last(mut training: tiger_engine::Training) -> TrainEvent {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        loop {
            let event = tokio::time::timeout(PATIENCE, training.events.recv()).await.unwrap().expect("an end");
            if matches!(event, TrainEvent::Done(_) | TrainEvent::Failed(_)) {
                return event;
            }
        }
    })
}

#[test]
fn while_a_model_trains_and_scored_again_bitwise() {
    for (precision, kv_type) in [(Precision::Bf16, KvType::Bf16), (Precision::Int8, KvType::Bf16), (Precision::Int4, KvType::Int8)] {
        trains_and_scores_again(&model_with(precision, kv_type));
    }
    trains_and_scores_again(&model_of(&Architecture { qk_norm: true, ..architecture() }, Precision::Bf16, KvType::Bf16));
}

fn trains_and_scores_again(model: &Arc<Model>) {
    let source = || FakeSource::of(model.clone());
    let expected = alone_on(source());
    let (_engine, handle) = start(Config { micro_batch_tokens: 64, ..config() }, Arc::new(source()));
    let mut two = watched();
    two.samples = 2;
    let sampled = ask(&handle, two);
    let state = AdapterState::new(adapter(1));
    let runs: Vec<_> = (0..3).map(|_| handle.train(training(state.clone(), &sampled, [1.0, 0.0])).unwrap()).collect();
    until("a training starts", || handle.status().trained_tokens > 0);
    assert_eq!(ask(&handle, watched()).answers, expected.answers);
    let mut outcomes = Vec::new();
    for run in runs {
        match last(run) {
            TrainEvent::Done(outcome) => outcomes.push(outcome),
            other => panic!("{other:?}"),
        }
    }
    // The trainer's log-probs before the first step are the sampler's: the ratio is exactly 1.
    for outcome in &outcomes {
        assert_eq!((outcome.metrics.step.ratio_mean, outcome.metrics.step.ratio_max), (1.0, 1.0));
        for (sample, response) in outcome.metrics.responses.iter().enumerate() {
            let sum: f64 = sampled.answers[&(sample as u32)].tokens.iter().map(|(_, bits)| f64::from(f32::from_bits(*bits))).sum();
            assert_eq!(response.logprob_before, sum);
        }
        assert_eq!(outcome.state, outcomes[0].state, "the same training gives the same weights");
    }
    check(&handle);
    until("all trainings are counted out", || handle.status().trainings == 0);
}

#[test]
fn greedy_and_seeds() {
    let (_engine, handle) = engine(config());
    let mut greedy = watched();
    greedy.sampling.temperature = 0.0;
    greedy.samples = 3;
    let answer = ask(&handle, greedy);
    assert_eq!(answer.answers[&0], answer.answers[&1]);
    assert_eq!(answer.answers[&0], answer.answers[&2]);
    let mut seeded = watched();
    seeded.sampling.seed = 100;
    assert_ne!(ask(&handle, seeded).ids(0), ask(&handle, watched()).ids(0));
}
