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
