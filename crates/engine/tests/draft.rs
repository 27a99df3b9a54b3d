//! Drafts, their odds, and when a row pays, without an engine.

use tiger_engine::sample::draft::{Drafter, MAX_DRAFT, Text};
use tiger_engine::sample::pace::{MOST_ROWS, Pace};

/// Feeds `answer` token by token behind `prompt`; returns the drafter as it stands at the end.
fn fed(prompt: &[u32], answer: &[u32], end_tokens: &[u32]) -> Drafter {
    let mut drafter = Drafter::default();
    for upto in 0..=answer.len() {
        drafter.propose(Text { prompt, generated: &answer[..upto] }, MAX_DRAFT, end_tokens);
    }
    drafter
}

fn text(len: u32) -> Vec<u32> {
    (0..len).map(|i| (i % 1009).pow(2) % 1009 + i).collect()
}

#[test]
fn a_copy_is_drafted_and_believed_more_and_more() {
    let prompt = text(100);
    let mut before = 0.0;
    for copied in [3, 6, 12, 40] {
        let drafter = fed(&prompt, &prompt[20..20 + copied], &[]);
        let length = drafter.draft().len();
        assert_eq!(drafter.draft(), &prompt[20 + copied..][..length]);
        let sum: f32 = drafter.odds().sum();
        assert!(drafter.odds().is_sorted_by(|a, b| a >= b) && sum > before, "{copied}: {sum}");
        before = sum;
    }
    assert!(before > 12.0, "{before} of {MAX_DRAFT}");
    // What ends the answer is not drafted.
    assert_eq!(fed(&prompt, &prompt[20..60], &[prompt[64]]).draft(), &prompt[60..64]);
}

#[test]
fn the_longest_match_wins_and_a_loop_goes_on() {
    let prompt = [1, 2, 3, 4, 9, 9, 7, 3, 4, 5, 5, 2, 3, 4];
    assert_eq!(fed(&prompt, &[], &[]).draft()[0], 9, "three tokens are alike there, two in the later place");
    let round: Vec<u32> = (0..60).map(|i| i % 3).collect();
    let drafter = fed(&[50], &round, &[]);
    assert_eq!(drafter.draft(), [0, 1, 2].repeat(5));
}

#[test]
fn what_does_not_repeat_is_not_drafted() {
    assert!(fed(&text(100), &[], &[]).draft().is_empty());
    // Pairs come again all the time, and what follows is always another token.
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 29
    };
    let noise: Vec<u32> = (0..600).map(|_| noise()).collect();
    let odds: f32 = fed(&[1, 2], &noise, &[]).odds().take(1).sum();
    assert!(odds < 0.5, "{odds}");
}

#[test]
fn memory_is_bounded_and_the_recent_part_is_known() {
    let prompt = text(200_000);
    let drafter = fed(&prompt, &prompt[190_000..190_040], &[]);
    assert_eq!(&drafter.draft()[..8], &prompt[190_040..190_048]);
    assert!(fed(&prompt, &prompt[1000..1040], &[]).draft().is_empty());
    // The same grown token by token, across the point where the older half is forgotten.
    let grown = text(66_000);
    let drafter = fed(&[], &grown, &[]);
    assert!(drafter.draft().is_empty());
}

#[test]
fn rows_are_drafted_where_they_pay() {
    let odds = |chance: f32| (1..=MAX_DRAFT as i32).map(move |i| chance.powi(i));
    let mut unknown = Pace::default();
    assert_eq!(unknown.worth(1, odds(1.0)), 0, "nothing was measured");
    unknown.note(1, 0.010);
    assert_eq!(unknown.worth(1, odds(0.99)), MAX_DRAFT, "it is tried");
    assert_eq!(unknown.worth(1, odds(0.01)), 0);
    let measured = |row: f64| {
        let mut pace = Pace::default();
        (1..=MOST_ROWS).for_each(|n| pace.note(n, 0.010 * (1.0 + row * (n - 1) as f64)));
        pace
    };
    let cheap = measured(0.02);
    assert_eq!(cheap.worth(1, odds(0.95)), MAX_DRAFT);
    assert!((1..8).contains(&cheap.worth(1, odds(0.5))));
    // A row costs nearly a step: only what is certain pays.
    let dear = measured(0.9);
    assert_eq!(dear.worth(1, odds(0.9)), 0);
    // Many streams are bound by arithmetic: a draft has to be about as certain as a stream of its own.
    let crowd = measured(0.3);
    assert!(crowd.worth(1, odds(0.8)) > 1);
    assert_eq!(crowd.worth(32, odds(0.8)), 0);
    assert_eq!(crowd.worth(MOST_ROWS, odds(1.0)), 0, "the step is full");
}

#[test]
fn a_bad_measurement_is_not_believed_for_ever() {
    let mut pace = Pace::default();
    pace.note(1, 0.010);
    (2..=16).for_each(|n| pace.note(n, 1.0));
    let odds = || std::iter::repeat_n(0.9, MAX_DRAFT);
    assert_eq!(pace.worth(1, odds()), 0);
    let tries = (0..10_000).filter(|_| {
        let tried = pace.worth(1, odds());
        pace.note(1 + tried, if tried > 0 { 0.2 } else { 0.010 });
        tried > 0
    });
    let tries = tries.count();
    assert!((1..100).contains(&tries), "{tries} tries that did not pay in 10,000 steps");
}

/// Tokens of a simulated prompt and answer.
const PROMPT: u32 = 256;
const ANSWER: usize = 512;

/// What a made-up machine needs for an answer of every stream with drafts, as a share of what it needs without. A step of n rows takes
/// 1 + `row` · (n − 1), times 1 ± `noise`.
fn share(streams: usize, row: f64, noise: f64, answer: impl Fn(u32) -> u32) -> f64 {
    let prompt: Vec<u32> = (0..PROMPT).map(scattered).collect();
    let script: Vec<u32> = (0..ANSWER as u32).map(answer).collect();
    let step = |rows: usize| 1.0 + row * (rows - 1) as f64;
    let mut drafters: Vec<(Drafter, usize)> = (0..streams).map(|_| (Drafter::default(), 0)).collect();
    let (mut pace, mut seconds, mut steps) = (Pace::default(), 0.0, 0);
    loop {
        drafters.retain(|(_, said)| *said < ANSWER);
        if drafters.is_empty() {
            return seconds / (ANSWER as f64 * step(streams));
        }
        let mut odds: Vec<(f32, usize)> = Vec::new();
        for (i, (drafter, said)) in drafters.iter_mut().enumerate() {
            drafter.propose(Text { prompt: &prompt, generated: &script[..*said] }, ANSWER - *said - 1, &[]);
            odds.extend(drafter.odds().map(|odds| (odds, i)));
        }
        odds.sort_by(|a, b| b.0.total_cmp(&a.0));
        let worth = pace.worth(drafters.len(), odds.iter().map(|(odds, _)| *odds));
        let mut granted = vec![0; drafters.len()];
        odds[..worth].iter().for_each(|(_, i)| granted[*i] += 1);
        let rows = drafters.len() + worth;
        pace.note(rows, step(rows) * (1.0 + noise * (f64::from(scattered(steps)) / 500.0 - 1.0)));
        (seconds, steps) = (seconds + step(rows), steps + 1);
        for ((drafter, said), granted) in drafters.iter_mut().zip(granted) {
            let right = drafter.draft()[..granted].iter().zip(&script[*said..]).take_while(|(draft, token)| draft == token);
            *said += right.count() + 1;
        }
    }
}

/// Numbers below 1,000 in no order (the finaliser of MurmurHash3).
fn scattered(i: u32) -> u32 {
    let mut x = i.wrapping_mul(0x9e37_79b9);
    for factor in [0x85eb_ca6b, 0xc2b2_ae35_u32] {
        x = (x ^ (x >> 15)).wrapping_mul(factor);
    }
    (x ^ (x >> 16)) % 1000
}

#[test]
fn drafts_cost_next_to_nothing_where_they_do_not_pay() {
    let new = |i| scattered(i + 100_000);
    // Nearly every pair came before, and says nothing of what follows.
    let misleading = |i| scattered(i + 200_000) % 16;
    let copied = |i| if i % 32 == 31 { scattered(i + 300_000) } else { scattered(i % PROMPT) };
    for row in [0.02, 0.1, 0.3, 0.6, 0.9, 1.0] {
        for streams in [1, 8, 32] {
            for noise in [0.0, 0.1] {
                let shares = [share(streams, row, noise, new), share(streams, row, noise, misleading), share(streams, row, noise, copied)];
                let worst = shares.iter().copied().fold(0.0, f64::max);
                assert!(worst <= 1.02, "{streams} streams, a row {row} of a step, noise {noise}: new, misleading, copied {shares:.3?}");
            }
        }
    }
    // Where rows are cheap, they are found to pay, however many there are.
    let shares = [1, 8, 32].map(|streams| share(streams, 0.02, 0.1, copied));
    assert!(shares[0] < 0.2 && shares[1] < 0.5 && shares[2] < 0.8, "{shares:?}");
}
