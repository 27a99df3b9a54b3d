//! Text assembly at every way to cut the same text into pieces.

use super::*;

/// Every way to cut `text` into up to three pieces at character borders, and character by character.
fn cuts(text: &str) -> Vec<Vec<&str>> {
    let borders: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut ways = vec![text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect()];
    for &a in &borders {
        for &b in borders.iter().filter(|b| **b >= a) {
            ways.push(vec![&text[..a], &text[a..b], &text[b..]]);
        }
    }
    ways
}

#[test]
fn stop_strings_do_not_depend_on_borders() {
    let table: &[(&str, &[&str], &str, bool)] = &[
        ("Hello.\n\nBye", &["\n\n"], "Hello.", true),
        ("Hello.\nBye", &["\n\n"], "Hello.\nBye", false),
        ("abcabd", &["abd"], "abc", true),
        ("aaab", &["aab"], "a", true),
        ("xabcdy", &["abcd", "bc"], "xa", true),
        ("xabcy", &["bc", "abc"], "x", true),
        ("naïve — 日本語です", &["語で"], "naïve — 日本", true),
        ("日本語", &["本誤"], "日本語", false),
        ("END", &["END"], "", true),
        ("almost EN", &["END"], "almost EN", false),
        ("no stops", &[], "no stops", false),
    ];
    for (text, stops, expected, stopped) in table {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        for pieces in cuts(text) {
            let mut matcher = StopMatcher::new(&stops);
            let mut out = String::new();
            for piece in &pieces {
                out.push_str(&matcher.push(piece));
            }
            out.push_str(&matcher.finish());
            assert_eq!((out.as_str(), matcher.stopped), (*expected, *stopped), "{text:?} cut as {pieces:?}");
            assert_eq!(matcher.emitted_bytes, expected.len());
        }
    }
}

#[test]
fn nothing_is_shown_that_may_still_be_a_stop_string() {
    let mut matcher = StopMatcher::new(&["\n\n".to_owned()]);
    assert_eq!(matcher.push("a\n"), "a");
    assert_eq!(matcher.push("b"), "\nb");
    assert_eq!(matcher.push("\n"), "");
    assert_eq!(matcher.push("\nrest"), "");
    assert!(matcher.stopped);
}

#[test]
fn thoughts_are_split_whatever_the_borders() {
    let table: &[(bool, &str, &str, &str)] = &[
        (true, "I think.\n</think>\n\nYes.", "I think.", "Yes."),
        (true, "\nI think\n\nmore</think>Yes.\n", "I think\n\nmore", "Yes.\n"),
        (true, "\n\n</think>\n\nYes.", "", "Yes."),
        (true, "a < b </thin", "a < b </thin", ""),
        (true, "cut off ", "cut off ", ""),
        (false, "<think>\nHm.\n</think>\nYes.", "Hm.", "Yes."),
        (false, "\n<think>Hm.</think>Yes.", "Hm.", "Yes."),
        (false, "Yes, no <think>.", "", "Yes, no <think>."),
        (false, "<thin", "", "<thin"),
        (false, " Yes", "", " Yes"),
        (true, "x</think> a </think> b", "x", "a </think> b"),
    ];
    for (opened, text, reasoning, content) in table {
        for pieces in cuts(text) {
            let mut split = ThinkSplit::new(*opened);
            let (mut thought, mut said) = (String::new(), String::new());
            for (a, b) in pieces.iter().map(|piece| split.push(piece)).collect::<Vec<_>>() {
                thought.push_str(&a);
                said.push_str(&b);
            }
            let (a, b) = split.finish();
            thought.push_str(&a);
            said.push_str(&b);
            assert_eq!((thought.as_str(), said.as_str()), (*reasoning, *content), "{text:?} cut as {pieces:?}");
        }
    }
}
