//! Life of requests: ends, hang-ups, limits, turns, loads that fail, bases that come and go, foreign code that panics.
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::*;
use tiger_engine::{
    Config, Constraint, EngineError, Event, FinishReason, GenerateRequest, Group, Knobs, Rejected, Response, TokenMask, TrainEvent,
    TrainRequest,
};
use tiger_model::{AdapterState, Precision};

#[test]
fn ends() {
    let (_engine, handle) = engine(config());
    let free = ask(&handle, request(prompt(20, 1)));
    assert_eq!(free.answers[&0].reason, Some(FinishReason::MaxTokens));
    assert_eq!(free.answers[&0].tokens.len(), 12);
    // The third token as an end token: it is reported, then the sample ends.
    let mut ended = request(prompt(20, 1));
    ended.end_tokens = vec![free.ids(0)[2]];
    let ended = ask(&handle, ended);
    let at = free.ids(0).iter().position(|t| *t == free.ids(0)[2]).unwrap();
    assert_eq!(ended.ids(0), free.ids(0)[..=at]);
    assert_eq!(ended.answers[&0].reason, Some(FinishReason::EndOfTurn));
    let mut one = request(prompt(1, 1));
    one.max_tokens = 1;
    one.samples = 5;
    let one = ask(&handle, one);
    assert!(one.answers.len() == 5 && one.answers.values().all(|a| a.tokens.len() == 1));
    check(&handle);
    let status = handle.status();
    assert_eq!((status.waiting, status.running), (0, 0));
    assert_eq!(status.sampled_tokens, 12 + at as u64 + 1 + 5);
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    let (_engine, handle) = engine(config());
    type Spoil = fn(&mut GenerateRequest);
    let cases: [(&str, Spoil); 6] = [
        ("prompt", |r| r.prompt.clear()),
        ("samples", |r| r.samples = 0),
        ("max_tokens", |r| r.max_tokens = 0),
        ("temperature", |r| r.sampling.temperature = f32::NAN),
        ("top_p", |r| r.sampling.top_p = 0.0),
        ("min_p", |r| r.sampling.min_p = 2.0),
    ];
    for (word, spoil) in cases {
        let mut bad = request(prompt(3, 0));
        spoil(&mut bad);
        match handle.generate(bad) {
            Err(Rejected::Invalid(text)) => assert!(text.contains(word), "{text}"),
            _ => panic!("{word} was let through"),
        }
    }
    let outside = ask(&handle, request(vec![1, VOCAB]));
    assert!(matches!(outside.error, Some(EngineError::Invalid(_))), "{outside:?}");
    check(&handle);
}

#[test]
fn a_hang_up_frees_its_pages_and_a_cancelled_sample_ends() {
    let (_engine, handle) = engine(config());
    let mut long = request(prompt(40, 1));
    long.max_tokens = 1_000;
    long.samples = 3;
    let mut generation = handle.generate(long).unwrap();
    while !matches!(next(&mut generation), Some(Event::Token { .. })) {}
    generation.cancel(0);
    generation.cancel(2);
    let mut cancelled = Vec::new();
    while cancelled.len() < 2 {
        if let Some(Event::Finished { sample, reason }) = next(&mut generation) {
            assert_eq!(reason, FinishReason::Cancelled);
            cancelled.push(sample);
        }
    }
    cancelled.sort_unstable();
    assert_eq!(cancelled, [0, 2]);
    check(&handle);
    assert_eq!(handle.status().running, 1);
    drop(generation);
    until("the hang-up is noticed", || handle.status().running == 0);
    check(&handle);
}

#[test]
fn samples_cancelled_before_the_prompt_is_computed() {
    let source = Arc::new(FakeSource::new(Precision::Bf16));
    source.open(false);
    let (_engine, handle) = start(config(), source.clone());
    let mut five = request(prompt(40, 1));
    five.samples = 5;
    let generation = handle.generate(five).unwrap();
    for sample in [0, 1, 3] {
        generation.cancel(sample);
    }
    source.open(true);
    let got = collect(generation);
    for sample in 0..5u32 {
        let expected = if [0, 1, 3].contains(&sample) { FinishReason::Cancelled } else { FinishReason::MaxTokens };
        assert_eq!(got.answers[&sample].reason, Some(expected), "sample {sample}");
    }
    check(&handle);
}

#[test]
fn queues_are_bounded_and_drain_lets_run_out() {
    let source = Arc::new(FakeSource::new(Precision::Bf16));
    source.open(false);
    let (_engine, handle) = start(Config { queue_requests: 5, queue_requests_per_account: 3, ..config() }, source.clone());
    let from = |account: u64| {
        let mut r = request(prompt(10, 0));
        r.account = account;
        handle.generate(r)
    };
    let mut held: Vec<_> = (0..3).map(|_| from(1).unwrap()).collect();
    assert!(matches!(from(1), Err(Rejected::QueueFull { waiting: 3, retry_after_s: 1.. })));
    held.extend((0..2).map(|_| from(2).unwrap()));
    assert!(matches!(from(3), Err(Rejected::QueueFull { waiting: 5, .. })));
    assert_eq!(handle.status().waiting, 5);
    // One hangs up while it waits: its place is free.
    held.remove(0);
    until("the place is free", || handle.status().waiting == 4);
    held.push(from(1).unwrap());
    check(&handle);
    handle.drain();
    assert!(matches!(from(4), Err(Rejected::Draining)));
    assert!(matches!(handle.preload(base("tiny")), Err(Rejected::Draining)));
    source.open(true);
    for generation in held {
        let got = collect(generation);
        assert_eq!(got.error, None);
        assert!(got.infos.iter().any(|i| i.contains("Loading")), "{:?}", got.infos);
    }
    check(&handle);
}

#[test]
fn a_crowd_of_one_account_does_not_shut_out_another() {
    let source = Arc::new(FakeSource::new(Precision::Bf16));
    source.open(false);
    let (_engine, handle) = start(Config { max_sequences: 2, ..config() }, source.clone());
    let from = |account: u64| {
        let mut r = request(prompt(30, account as u32));
        r.account = account;
        r.max_tokens = 60;
        handle.generate(r).unwrap()
    };
    let crowd: Vec<_> = (0..40).map(|_| from(1)).collect();
    let single = from(2);
    source.open(true);
    assert_eq!(collect(single).error, None);
    // Well before the crowd is through.
    assert!(handle.status().waiting > 20, "{:?}", handle.status());
    drop(crowd);
    until("all are gone", || handle.status().running == 0 && handle.status().waiting == 0);
    check(&handle);
}

#[test]
fn loads_that_fail_or_panic_end_their_requests_only() {
    let (_engine, handle) = engine(config());
    let on = |name: &str, adapter: Option<u8>| {
        let mut r = request(prompt(10, 0));
        r.base = base(name);
        r.adapter = adapter.map(adapter_id);
        ask(&handle, r).error
    };
    for _ in 0..2 {
        assert_eq!(on("broken", None), Some(EngineError::Load("the file is cut short".into())));
        assert_eq!(on("missing", None), Some(EngineError::Load("no such base".into())));
        assert_eq!(on("panics", None), Some(EngineError::Internal));
        assert_eq!(on("unsizable", None), Some(EngineError::Internal));
        assert!(matches!(on("huge", None), Some(EngineError::OutOfMemory(text)) if text.contains("MiB")));
        assert_eq!(on("tiny", Some(250)), Some(EngineError::Load("the adapter is gone".into())));
        assert_eq!(on("tiny", Some(251)), Some(EngineError::Internal));
        assert_eq!(on("tiny", Some(1)), None);
        assert_eq!(on("tiny", None), None);
        check(&handle);
    }
    assert_eq!(collect(handle.preload(base("broken")).unwrap()).error, Some(EngineError::Load("the file is cut short".into())));
    until("status is current", || handle.status().loading.is_empty());
}

#[test]
fn bases_come_and_go_within_the_budget() {
    let source = Arc::new(FakeSource::new(Precision::Bf16));
    // Two bases fit, three do not.
    let kv_bytes = pages(&source, 32);
    let memory_budget_bytes = 2 * (source.bytes + kv_bytes) + source.bytes / 2;
    let (_engine, handle) = start(Config { kv_bytes, memory_budget_bytes, ..config() }, source.clone());
    let loaded = || handle.status().bases.iter().map(|(id, _)| id.0.to_string()).collect::<Vec<_>>();
    let on = |name: &str| {
        let mut r = request(prompt(20, 0));
        r.base = base(name);
        ask(&handle, r)
    };
    assert_eq!(collect(handle.preload(base("a")).unwrap()).error, None);
    let first = on("a");
    assert_eq!(on("b").answers, first.answers);
    assert_eq!(source.loads.load(Ordering::Relaxed), 2);
    // `a` was used longest ago.
    assert_eq!(on("c").answers, first.answers);
    until("status is current", || loaded() == ["b", "c"]);
    assert_eq!(on("b").error, None);
    assert_eq!(on("a").error, None);
    until("status is current", || loaded() == ["a", "b"]);
    assert_eq!(source.loads.load(Ordering::Relaxed), 4);
    // All three wanted at once, again and again: nobody starves.
    let all: Vec<_> = (0..9)
        .map(|i| {
            let mut r = request(prompt(20, 0));
            r.base = base(["a", "b", "c"][i % 3]);
            handle.generate(r).unwrap()
        })
        .collect();
    all.into_iter().for_each(|g| assert_eq!(collect(g).answers, first.answers));
    check(&handle);
}

#[test]
fn others_are_served_while_a_base_loads() {
    let source = Arc::new(FakeSource::new(Precision::Bf16));
    let (_engine, handle) = start(config(), source.clone());
    assert_eq!(ask(&handle, request(prompt(5, 0))).error, None);
    source.open(false);
    let mut slow = request(prompt(5, 0));
    slow.base = base("slow");
    let slow = handle.generate(slow).unwrap();
    until("it loads", || handle.status().loading == [base("slow")]);
    assert_eq!(ask(&handle, request(prompt(5, 1))).error, None);
    source.open(true);
    let slow = collect(slow);
    assert_eq!(slow.error, None);
    assert!(slow.infos.contains(&"Loading weights".to_owned()), "{:?}", slow.infos);
}

#[test]
fn what_never_fits_is_told_with_numbers() {
    let source = Arc::new(FakeSource::new(Precision::Bf16));
    let (_engine, handle) = start(Config { kv_bytes: pages(&source, 4), ..config() }, source);
    let error = ask(&handle, request(prompt(65, 0))).error;
    assert!(
        matches!(&error, Some(EngineError::OutOfMemory(text)) if text.contains("65 tokens") && text.contains("64 tokens")),
        "{error:?}"
    );
    let mut grows = request(prompt(60, 0));
    grows.max_tokens = 100;
    assert!(matches!(ask(&handle, grows).error, Some(EngineError::OutOfMemory(_))));
    assert_eq!(ask(&handle, request(prompt(50, 0))).error, None);
    check(&handle);
}

/// Allows two tokens, ends after `left`, and misbehaves on demand.
struct Scripted {
    left: u32,
    fault: &'static str,
}

impl Constraint for Scripted {
    fn mask(&mut self) -> Result<TokenMask, String> {
        match self.fault {
            "panic" if self.left == 1 => panic!("the grammar panics on purpose"),
            "refuse" if self.left == 1 => Err("no such production".into()),
            "nothing" if self.left == 1 => Ok(vec![0; VOCAB as usize / 32]),
            _ => Ok(vec![0, 0b11 << 7]),
        }
    }
    fn accept(&mut self, token: u32) -> Result<(), String> {
        assert!(token == 39 || token == 40);
        self.left -= 1;
        Ok(())
    }
    fn is_done(&self) -> bool {
        self.left == 0
    }
}

#[test]
fn constraints() {
    let (_engine, handle) = engine(config());
    let with = |left: u32, fault: &'static str| {
        let mut r = request(prompt(20, 1));
        r.samples = 3;
        r.constraint = Some(Box::new(move || {
            if fault == "factory" { Err("no grammar".into()) } else { Ok(Box::new(Scripted { left, fault }) as Box<dyn Constraint>) }
        }));
        ask(&handle, r)
    };
    let good = with(4, "");
    assert!(good.answers.len() == 3 && good.answers.values().all(|a| a.tokens.len() == 4 && a.reason == Some(FinishReason::EndOfTurn)));
    assert!(good.answers.values().flat_map(|a| &a.tokens).all(|(id, _)| [39, 40].contains(id)));
    let empty = with(0, "");
    assert!(empty.answers.values().all(|a| a.tokens.is_empty() && a.reason == Some(FinishReason::EndOfTurn)));
    assert!(matches!(with(3, "refuse").error, Some(EngineError::Constraint(text)) if text == "no such production"));
    assert!(matches!(with(3, "nothing").error, Some(EngineError::Constraint(_))));
    assert!(matches!(with(3, "factory").error, Some(EngineError::Constraint(text)) if text == "no grammar"));
    assert_eq!(with(3, "panic").error, Some(EngineError::Internal));
    // The reported log-prob is the model's own, not the masked one's.
    let mean: f32 = good.answers.values().flat_map(|a| &a.tokens).map(|(_, bits)| f32::from_bits(*bits)).sum::<f32>() / 12.0;
    assert!(mean < -2.0, "{mean}");
    assert_eq!(ask(&handle, request(prompt(20, 1))).error, None);
    check(&handle);
}

#[test]
fn trainings_that_cannot_run() {
    let (engine, handle) = engine(config());
    let training = |name: &str, tokens: Vec<u32>| TrainRequest {
        base: base(name),
        account: 1,
        state: AdapterState::new(adapter(1)),
        reference: None,
        dropout: 0.0,
        groups: vec![Group {
            prompt: prompt(10, 0),
            responses: vec![
                Response { tokens: tokens.clone(), reward: 1.0, recorded: None },
                Response { tokens, reward: 0.0, recorded: None },
            ],
        }],
        knobs: Knobs::default(),
    };
    let end = |mut run: tiger_engine::Training| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            loop {
                match run.events.recv().await.expect("an end") {
                    TrainEvent::Failed(error) => return Err(error),
                    TrainEvent::Done(outcome) => return Ok(outcome.metrics.updated),
                    _ => {}
                }
            }
        })
    };
    assert!(matches!(handle.train(training("tiny", vec![])), Err(Rejected::Invalid(_))));
    assert_eq!(end(handle.train(training("broken", vec![1, 2])).unwrap()), Err(EngineError::Load("the file is cut short".into())));
    assert!(matches!(end(handle.train(training("tiny", vec![VOCAB])).unwrap()), Err(EngineError::Invalid(_))));
    assert_eq!(end(handle.train(training("tiny", vec![1, 2])).unwrap()), Ok(true));
    // A caller that hung up leaves nothing behind.
    drop(handle.train(training("tiny", vec![3, 4])).unwrap());
    until("trainings are counted out", || handle.status().trainings == 0);
    let mut long = request(prompt(10, 0));
    long.max_tokens = 100_000;
    let generation = handle.generate(long).unwrap();
    drop(engine);
    assert_eq!(collect(generation).error, Some(EngineError::Cancelled));
    assert!(matches!(handle.generate(request(prompt(3, 0))), Err(Rejected::Draining)));
}
