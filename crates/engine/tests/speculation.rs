//! Invariant 10 under speculation: drafts change neither tokens nor the bits of log-probs, nor where an answer ends.
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

mod common;

use std::sync::Arc;

use common::*;
use tiger_engine::{Config, Constraint, Event, FinishReason, GenerateRequest, Rejected, Sampling, Speculation, Status, TokenMask};
use tiger_model::Precision;

fn under(speculation: Speculation) -> Config {
    Config { speculation, ..config() }
}

/// Asks engines with and without drafts; the answers must be equal. Returns the answer and what the engine that always drafts counted.
fn check_same(what: &str, config: &Config, request: impl Fn() -> GenerateRequest) -> (Collected, Status) {
    let run = |speculation| {
        let (_engine, handle) = engine(Config { speculation, ..config.clone() });
        let answer = ask(&handle, request());
        check(&handle);
        until("the request is counted out", || handle.status().running == 0);
        (answer, handle.status())
    };
    let (expected, off) = run(Speculation::Off);
    assert_eq!((off.drafted_tokens, off.accepted_tokens), (0, 0));
    let (auto, _) = run(Speculation::Auto);
    assert_eq!(auto, expected, "{what}: drafts where they pay");
    let (always, status) = run(Speculation::Always);
    assert_eq!(always, expected, "{what}: drafts at every step");
    assert_eq!(status.sampled_tokens, off.sampled_tokens, "{what}");
    assert!(status.accepted_tokens < status.drafted_tokens, "{what}: some drafts are wrong: {status:?}");
    (expected, status)
}

fn sampling(temperature: f32, top_p: f32, top_k: u32, min_p: f32) -> Sampling {
    Sampling { temperature, top_p, top_k, min_p, seed: 5 }
}

#[test]
fn the_same_bits_at_every_temperature_and_filter() {
    let cases = [
        ("greedy", sampling(0.0, 1.0, 0, 0.0), true),
        ("cold", sampling(0.04, 1.0, 0, 0.0), true),
        ("temperature 1", sampling(1.0, 1.0, 0, 0.0), false),
        ("top-k", sampling(0.04, 1.0, 2, 0.0), true),
        ("top-p", sampling(0.05, 0.6, 0, 0.0), true),
        ("top-k, top-p and min-p", sampling(0.7, 0.8, 20, 0.05), false),
    ];
    for (name, sampling, repeats) in cases {
        for adapter in [None, Some(adapter_id(1))] {
            let (_, status) =
                check_same(name, &config(), || GenerateRequest { samples: 4, max_tokens: 60, adapter, sampling, ..request(prompt(37, 2)) });
            assert!(status.accepted_tokens > 10 || !repeats, "{name}: no draft was right: {status:?}");
        }
    }
}

#[test]
fn alternatives_are_the_most_probable_tokens_with_and_without_drafts() {
    for (temperature, alternatives) in [(0.0, 1), (0.04, 5), (1.0, VOCAB as usize), (1.0, 20)] {
        let asked = || GenerateRequest {
            samples: 3,
            max_tokens: 40,
            sampling: sampling(temperature, 1.0, 0, 0.0),
            alternatives: alternatives.min(64),
            ..request(prompt(37, 2))
        };
        let (answer, _) = check_same(&format!("{alternatives} alternatives"), &config(), asked);
        let plain = check_same("none", &config(), || GenerateRequest { alternatives: 0, ..asked() }).0;
        for (sample, told) in &answer.answers {
            assert_eq!(told.tokens, plain.answers[sample].tokens, "telling changes nothing");
            assert_eq!(told.alternatives.len(), told.tokens.len());
            for ((id, logprob), others) in told.tokens.iter().zip(&told.alternatives) {
                assert_eq!(others.len(), alternatives.min(64));
                let numbers: Vec<f32> = others.iter().map(|(_, logprob)| f32::from_bits(*logprob)).collect();
                assert!(numbers.is_sorted_by(|a, b| a >= b), "{numbers:?}");
                let sum: f64 = numbers.iter().map(|logprob| f64::from(*logprob).exp()).sum();
                assert!(sum > 0.0 && sum < 1.0 + 1e-5, "{sum}");
                match others.iter().find(|(other, _)| other == id) {
                    Some((_, theirs)) => assert_eq!(theirs, logprob, "one token, one log-prob"),
                    None => assert!(f32::from_bits(*logprob) <= numbers[numbers.len() - 1]),
                }
                assert!(temperature > 0.0 || others[0].0 == *id, "greedy takes the first");
            }
        }
    }
    let (_engine, handle) = engine(config());
    let refused = handle.generate(GenerateRequest { alternatives: 65, ..request(prompt(3, 1)) });
    assert!(matches!(refused, Err(Rejected::Invalid(message)) if message.contains("at most 64")));
}

#[test]
fn the_same_bits_in_company_with_few_rows_and_few_pages() {
    let asked = || -> Vec<GenerateRequest> {
        let one = |i: u32| GenerateRequest {
            adapter: [None, Some(adapter_id(1)), Some(adapter_id(2))][i as usize % 3],
            account: u64::from(i % 2),
            samples: 1 + i % 3,
            max_tokens: 30 + 5 * i,
            sampling: sampling([0.0, 0.04, 1.0][i as usize % 3], 0.95, 0, 0.0),
            ..request(prompt(3 + 11 * i as usize, i))
        };
        (0..7).map(one).collect()
    };
    let source = Arc::new(FakeSource::new(Precision::Bf16));
    let (_engine, handle) = start(under(Speculation::Off), source.clone());
    let expected: Vec<_> = asked().into_iter().map(|r| ask(&handle, r).answers).collect();
    let all = under(Speculation::Always);
    let crowded = [
        all.clone(),
        Config { step_tokens: 5, ..all.clone() },
        Config { step_tokens: 1, ..all.clone() },
        Config { kv_bytes: pages(&source, 14), ..all.clone() },
        Config { kv_bytes: pages(&source, 10), max_sequences: 3, ..all },
    ];
    for config in crowded {
        let few = config.kv_bytes < 1 << 20;
        let (_engine, handle) = start(config.clone(), source.clone());
        let running: Vec<_> = asked().into_iter().map(|r| handle.generate(r).unwrap()).collect();
        let got: Vec<_> = running.into_iter().map(|generation| collect(generation).answers).collect();
        assert!(got == expected, "{config:?}");
        check(&handle);
        let status = handle.status();
        let prompts: u64 = asked().iter().map(|r| r.prompt.len() as u64).sum();
        assert!(status.accepted_tokens > 0 || config.step_tokens == 1, "{config:?}");
        assert!(!few || status.prompt_tokens + status.cached_tokens > prompts, "nobody was preempted");
    }
}

#[test]
fn an_answer_ends_where_it_would_have() {
    let asked = |max_tokens, end_tokens| GenerateRequest {
        max_tokens,
        end_tokens,
        sampling: sampling(0.04, 1.0, 0, 0.0),
        samples: 2,
        ..request(prompt(20, 3))
    };
    let (_off_engine, off) = engine(under(Speculation::Off));
    let (_engine, handle) = engine(under(Speculation::Always));
    let whole = ask(&off, asked(40, vec![]));
    for max_tokens in 1..=40 {
        let got = ask(&handle, asked(max_tokens, vec![]));
        for (sample, answer) in &got.answers {
            assert_eq!(answer.tokens, whole.answers[sample].tokens[..max_tokens as usize], "at most {max_tokens}");
            assert_eq!(answer.reason, Some(FinishReason::MaxTokens));
        }
    }
    // Every token once as the end token; most of them lie in a run of right drafts.
    for end in whole.ids(0) {
        let ends = || asked(40, vec![end]);
        assert_eq!(ask(&handle, ends()).answers, ask(&off, ends()).answers, "end token {end}");
    }
    check(&handle);
    let status = handle.status();
    assert!(status.accepted_tokens > 100, "{status:?}");
    let more = |handle: &tiger_engine::Handle| {
        let mut longer = asked(30, vec![]);
        longer.prompt.extend(whole.ids(0));
        ask(handle, longer)
    };
    // The pages that right drafts filled are found as a prefix, those of wrong ones are not.
    assert_eq!((more(&handle).answers, 48), (more(&off).answers, more(&handle).cached));
}

/// Allows one or two tokens, by turns; done after `left`.
struct Narrow {
    left: u32,
    panics: bool,
}

impl Constraint for Narrow {
    fn mask(&mut self) -> Result<TokenMask, String> {
        assert!(!(self.panics && self.left == 3), "the grammar panics on purpose");
        let mut mask = vec![0; VOCAB as usize / 32];
        mask[1] = if self.left.is_multiple_of(5) { 0b11 } else { 0b10 << (self.left % 2) };
        Ok(mask)
    }
    fn accept(&mut self, token: u32) -> Result<(), String> {
        let allowed = self.mask()?[token as usize / 32] >> (token % 32) & 1 == 1;
        self.left = self.left.checked_sub(1).ok_or("accepted behind the end")?;
        if allowed { Ok(()) } else { Err(format!("token {token} is not allowed")) }
    }
    fn is_done(&self) -> bool {
        self.left == 0
    }
}

#[test]
fn constraints_are_followed_token_by_token() {
    let narrow = |left, panics| GenerateRequest {
        samples: 3,
        max_tokens: 100,
        constraint: Some(Box::new(move || Ok(Box::new(Narrow { left, panics }) as Box<dyn Constraint>))),
        ..request(prompt(10, 1))
    };
    for left in [1, 2, 17, 40, 41] {
        let (_off_engine, handle) = engine(under(Speculation::Off));
        let expected = ask(&handle, narrow(left, false));
        let (_engine, handle) = engine(under(Speculation::Always));
        let got = ask(&handle, narrow(left, false));
        assert_eq!(got, expected, "{left} tokens");
        assert!(got.answers.values().all(|a| a.tokens.len() == left as usize && a.reason == Some(FinishReason::EndOfTurn)));
        until("it is counted", || handle.status().sampled_tokens == 3 * u64::from(left));
        let status = handle.status();
        assert!(left < 40 || status.accepted_tokens > u64::from(left), "{status:?}");
        // A panic in a run of right drafts ends its own request only.
        let bystander = handle.generate(request(prompt(10, 2))).unwrap();
        let failed = ask(&handle, narrow(left, true));
        assert_eq!(failed.error.is_some(), left >= 3);
        assert_eq!(collect(bystander).error, None);
        check(&handle);
    }
}

#[test]
fn a_cancelled_sample_leaves_the_others_alone() {
    let asked = || GenerateRequest { samples: 3, max_tokens: 400, sampling: sampling(0.04, 1.0, 0, 0.0), ..request(prompt(33, 6)) };
    let (_off_engine, off) = engine(under(Speculation::Off));
    let expected = ask(&off, asked());
    let (_engine, handle) = engine(under(Speculation::Always));
    let mut generation = handle.generate(asked()).unwrap();
    let mut got = Collected::default();
    loop {
        match next(&mut generation).unwrap() {
            Event::Token { sample, id, logprob, .. } => {
                let answer = got.answers.entry(sample).or_default();
                answer.tokens.push((id, logprob.to_bits()));
                if sample == 1 && answer.tokens.len() == 9 {
                    generation.cancel(1);
                }
            }
            Event::Finished { sample, reason } => got.answers.entry(sample).or_default().reason = Some(reason),
            Event::Done => break,
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    check(&handle);
    for sample in [0, 2] {
        assert_eq!(got.answers[&sample], expected.answers[&sample]);
    }
    let cut = &got.answers[&1];
    assert_eq!(cut.reason, Some(FinishReason::Cancelled));
    assert!(cut.tokens.len() >= 9 && expected.answers[&1].tokens.starts_with(&cut.tokens));
}
