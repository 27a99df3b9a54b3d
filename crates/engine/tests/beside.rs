//! A training beside streams: neither changes a bit of the other, whatever pauses the clock makes, and one that is given up leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

mod common;

use std::sync::Arc;

use common::*;
use tiger_engine::{
    Config, Event, GenerateRequest, Generation, Group, Handle, Knobs, Outcome, Recorded, Response, TrainEvent, TrainRequest, Training,
};
use tiger_kernels::Cpu;
use tiger_model::{AdapterState, KvType, Model, Precision, TrainBatch, TrainPass, Workspace};

const PRECISIONS: [(Precision, KvType); 3] =
    [(Precision::Bf16, KvType::Bf16), (Precision::Int8, KvType::Bf16), (Precision::Int4, KvType::Int8)];

/// Whatever a training does: dropout, a parent of its own, checkpointed layers, several micro-batches and steps.
fn training(sampled: &Collected) -> TrainRequest {
    let response = |sample: u32| Response {
        tokens: sampled.ids(sample),
        reward: f64::from(sample % 3),
        recorded: (sample != 1).then(|| Recorded {
            logprobs: sampled.answers[&sample].tokens.iter().map(|(_, bits)| f32::from_bits(*bits)).collect(),
            staleness: 0,
        }),
    };
    TrainRequest {
        base: base("tiny"),
        account: 1,
        state: AdapterState::new(adapter(1)),
        reference: Some(Arc::new(adapter(2))),
        dropout: 0.1,
        groups: vec![Group { prompt: sampled_request().prompt, responses: (0..4).map(response).collect() }],
        knobs: Knobs { steps: 8, target_kl: 1e9, kl_limit: 1e9, learning_rate: 1e-4, seed: 3, ..Knobs::default() },
    }
}

fn sampled_request() -> GenerateRequest {
    GenerateRequest { adapter: Some(adapter_id(1)), samples: 4, max_tokens: 24, ..request(prompt(75, 1)) }
}

fn stream(handle: &Handle, seed: u32) -> Generation {
    let mut request = GenerateRequest { max_tokens: 1500, ..request(prompt(30, seed)) };
    request.sampling.seed = u64::from(seed);
    handle.generate(request).unwrap()
}

fn small() -> Config {
    Config { micro_batch_tokens: 100, activation_bytes: 0, ..config() }
}

fn done(mut training: Training) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        loop {
            match tokio::time::timeout(PATIENCE, training.events.recv()).await.unwrap().expect("an end") {
                TrainEvent::Done(outcome) => return *outcome,
                TrainEvent::Failed(error) => panic!("{error}"),
                TrainEvent::Progress { .. } | TrainEvent::Info { .. } => {}
            }
        }
    })
}

fn first_token(stream: &mut Generation) {
    while !matches!(next(stream), Some(Event::Token { .. })) {}
}

#[test]
fn the_same_bytes_alone_and_beside_streams() {
    for (precision, kv_type) in PRECISIONS {
        let fresh = |config: Config| start(config, Arc::new(FakeSource::of(model_with(precision, kv_type))));
        let (_quiet_engine, quiet) = fresh(small());
        let sampled = ask(&quiet, sampled_request());
        let [alone, again] = [(); 2].map(|()| done(quiet.train(training(&sampled)).unwrap()));
        assert!(alone.state.is_some());
        assert_eq!((&alone.state, &alone.metrics), (&again.state, &again.metrics), "{precision:?}: twice from one seed");
        let streams_alone: Vec<_> = (0..2).map(|seed| ask_all(stream(&quiet, seed))).collect();
        for threads in [1, 2] {
            let (_engine, handle) = fresh(Config { threads, ..small() });
            let mut streams: Vec<_> = (0..2).map(|seed| stream(&handle, seed)).collect();
            streams.iter_mut().for_each(first_token);
            let trainings = [(); 2].map(|()| handle.train(training(&sampled)).unwrap());
            for beside in trainings.map(done) {
                let what = format!("{precision:?}, {threads} threads, beside streams");
                assert_eq!((&beside.state, &beside.metrics), (&alone.state, &alone.metrics), "{what}");
            }
            for (stream, alone) in streams.into_iter().zip(&streams_alone) {
                // The first token is taken already.
                assert_eq!(ask_all(stream), alone[1..], "{precision:?}, {threads} threads: the streams");
            }
            check(&handle);
        }
    }
}

/// Tokens and bits of their log-probs that are still to come, and that the stream ends well.
fn ask_all(mut stream: Generation) -> Vec<(u32, u32)> {
    let mut tokens = Vec::new();
    loop {
        match next(&mut stream).expect("an end") {
            Event::Token { id, logprob, .. } => tokens.push((id, logprob.to_bits())),
            Event::Done => return tokens,
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

#[test]
fn every_sampled_log_prob_is_the_trained_one() {
    for (precision, kv_type) in PRECISIONS {
        let model: Arc<Model> = model_with(precision, kv_type);
        let (_engine, handle) = start(config(), Arc::new(FakeSource::of(model.clone())));
        // Sampled while a training runs, in the company of other samples and of drafts.
        let sampled = ask(&handle, sampled_request());
        let beside = handle.train(training(&sampled)).unwrap();
        let again = ask(&handle, sampled_request());
        assert_eq!(again.answers, sampled.answers);
        done(beside);
        let (cpu, policy, prompt) = (Cpu::new(2, None), adapter(1), sampled_request().prompt);
        let mut workspace = Workspace::default();
        for answer in again.answers.values() {
            let ids: Vec<u32> = answer.tokens.iter().map(|(id, _)| *id).collect();
            let mut batch = TrainBatch::default();
            batch.push(prompt.iter().chain(&ids[..ids.len() - 1]).copied());
            batch.targets = ids.iter().enumerate().map(|(t, &token)| tiger_model::Target { row: prompt.len() - 1 + t, token }).collect();
            let pass = TrainPass { model: &model, cpu: &cpu, batch: &batch, adapter: Some(&policy), dropout: None };
            let saved = pass.forward(tiger_model::Keep::All, &mut workspace);
            let scores = model.score(&cpu, &saved.hidden, &batch.targets, &mut workspace);
            let trained: Vec<u32> = scores.iter().map(|score| score.logprob.to_bits()).collect();
            let sampled: Vec<u32> = answer.tokens.iter().map(|(_, bits)| *bits).collect();
            assert_eq!(trained, sampled, "{precision:?}, {kv_type:?}");
        }
    }
}

#[test]
fn a_training_given_up_frees_its_place_and_changes_nothing() {
    let (_engine, handle) = engine(small());
    let sampled = ask(&handle, sampled_request());
    let mut stream = stream(&handle, 1);
    first_token(&mut stream);
    let expected = done(handle.train(training(&sampled)).unwrap());
    for _ in 0..5 {
        let mut given_up =
            handle.train(TrainRequest { knobs: Knobs { steps: 16, ..training(&sampled).knobs }, ..training(&sampled) }).unwrap();
        // It computes: the first micro-batch is told.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, given_up.events.recv()).await }).unwrap();
        drop(given_up);
    }
    until("their places are free", || handle.status().trainings == 0);
    assert_eq!(done(handle.train(training(&sampled)).unwrap()).state, expected.state, "the next one starts from what was there");
    drop(stream);
    until("the pages are free", || handle.status().running == 0);
    check(&handle);
}
