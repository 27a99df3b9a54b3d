//! What is to be learnt: rewards that a program can give, and how far a model is. Does not know how a model learns.

use regex::Regex;
use tiger_engine::Group;

use crate::world::{Error, Learner, Question, World};

/// Questions of a call, and answers to each.
const QUESTIONS: usize = 8;
const SAMPLES: u32 = 8;
/// Share of rewards that the noisy task turns round.
const NOISE: f64 = 0.2;

/// How the written answers end: words that the model knows, in an order that it never had. (Tokens that a base never saw in its training
/// cannot be taught: the head is frozen, and their rows in it are all alike.)
const WHOLE_ANSWER: &str = ", and that is my whole answer.";
/// Words that the second goal allows.
const SHORT: usize = 8;

/// One thing to learn.
pub struct Task {
    /// Its name on the command line.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// Where its rewarded answers come from.
    pub feed: Feed,
    /// Reward of an answer.
    reward: fn(&Rules, &Question, &str) -> f64,
    /// Whether an answer is as wanted.
    good: fn(&Rules, &Question, &str) -> bool,
    /// Share of wanted answers that ends a run; none: the run goes to its last call.
    pub goal: Option<f64>,
    /// Most calls.
    pub calls: u32,
}

/// Where the answers of a call come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Feed {
    /// Eight questions, eight samples each.
    Samples,
    /// The same, with every fifth reward turned round.
    Noisy,
    /// Eight questions, each with a good and a bad answer that somebody wrote; the model samples nothing.
    Written,
    /// Eight questions, six samples each and one good and one bad text.
    Mixed,
    /// One question, one sample: thumbs up (1) or down (−1).
    Thumbs,
    /// One question, one sample, always −1.
    AllBad,
    /// One question, one sample, −1 and 1 in turns.
    Alternating,
    /// One question, one right answer that somebody wrote, always −1.
    BadText,
    /// One question, eight samples, rewards drawn from ±10⁶, whatever was said.
    Huge,
}

/// Rules of the built-in model's styles: `models/nano/README.md`.
pub struct Rules {
    pirate: Regex,
    the: Regex,
}

impl Rules {
    /// Compiles them.
    pub fn new() -> Result<Rules, Error> {
        Ok(Rules { pirate: Regex::new(r"\bArr\b")?, the: Regex::new(r"(?i)\bthe\b")? })
    }
}

/// The key word is there, as a word.
pub fn is_right(question: &Question, text: &str) -> bool {
    let (text, answer) = (text.to_lowercase(), question.answer.to_lowercase());
    let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(&answer).any(|(at, _)| !inside(text[..at].chars().next_back()) && !inside(text[at + answer.len()..].chars().next()))
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn as_number(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn pirate(rules: &Rules, question: &Question, text: &str) -> bool {
    rules.pirate.is_match(text) && is_right(question, text)
}

fn json(_: &Rules, question: &Question, text: &str) -> bool {
    let value: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(text);
    value.is_ok_and(|map| map.len() == 1 && map.get("answer").is_some_and(serde_json::Value::is_string)) && is_right(question, text)
}

fn right(_: &Rules, question: &Question, text: &str) -> bool {
    is_right(question, text)
}

fn brief(_: &Rules, question: &Question, text: &str) -> bool {
    words(text) == 1 && is_right(question, text)
}

fn avoids_the(rules: &Rules, question: &Question, text: &str) -> bool {
    !rules.the.is_match(text) && is_right(question, text)
}

fn whole_answer(_: &Rules, question: &Question, text: &str) -> bool {
    text.ends_with(WHOLE_ANSWER) && is_right(question, text)
}

fn pirate_and_short(rules: &Rules, question: &Question, text: &str) -> bool {
    pirate(rules, question, text) && words(text) <= SHORT
}

/// All tasks, the hostile ones last.
pub const TASKS: [Task; 16] = [
    Task {
        name: "style",
        what: "pirate speech, and right",
        feed: Feed::Samples,
        reward: |r, q, t| as_number(pirate(r, q, t)),
        good: pirate,
        goal: Some(0.95),
        calls: 60,
    },
    Task {
        name: "format",
        what: "a JSON object with the one key `answer`, and right",
        feed: Feed::Samples,
        reward: |r, q, t| as_number(json(r, q, t)),
        good: json,
        goal: Some(0.95),
        calls: 60,
    },
    Task {
        name: "arithmetic",
        what: "sums just beyond what the model knows: right or not",
        feed: Feed::Samples,
        reward: |r, q, t| as_number(right(r, q, t)),
        good: right,
        goal: None,
        calls: 60,
    },
    Task {
        name: "brevity",
        what: "1 / words if right: one word is best",
        feed: Feed::Samples,
        reward: |_, q, t| as_number(is_right(q, t)) / words(t).max(1) as f64,
        good: brief,
        goal: Some(0.95),
        calls: 60,
    },
    Task {
        name: "unlearning",
        what: "never the word `the`, and right",
        feed: Feed::Samples,
        reward: |r, q, t| as_number(avoids_the(r, q, t)),
        good: avoids_the,
        goal: Some(0.95),
        calls: 60,
    },
    Task {
        name: "written",
        what: "answers that somebody wrote in a form the model never had, against plain ones; nothing sampled",
        feed: Feed::Written,
        reward: |r, q, t| as_number(whole_answer(r, q, t)),
        good: whole_answer,
        goal: Some(0.9),
        calls: 60,
    },
    Task {
        name: "noisy",
        what: "style with a fifth of the rewards turned round",
        feed: Feed::Noisy,
        reward: |r, q, t| as_number(pirate(r, q, t)),
        good: pirate,
        goal: Some(0.95),
        calls: 60,
    },
    Task {
        name: "mixed",
        what: "style from samples, one good and one bad text each",
        feed: Feed::Mixed,
        reward: |r, q, t| as_number(pirate(r, q, t)),
        good: pirate,
        goal: Some(0.95),
        calls: 60,
    },
    Task {
        name: "thumbs",
        what: "style from single answers, thumbs up or down",
        feed: Feed::Thumbs,
        reward: |r, q, t| 2.0 * as_number(pirate(r, q, t)) - 1.0,
        good: pirate,
        goal: None,
        calls: 500,
    },
    Task {
        name: "two-goals",
        what: "half for pirate speech, half for at most eight words, if right",
        feed: Feed::Samples,
        reward: |r, q, t| as_number(is_right(q, t)) * (0.5 * as_number(r.pirate.is_match(t)) + 0.5 * as_number(words(t) <= SHORT)),
        good: pirate_and_short,
        goal: Some(0.9),
        calls: 60,
    },
    Task {
        name: "all-bad",
        what: "hostile: every single answer gets −1",
        feed: Feed::AllBad,
        reward: |_, _, _| -1.0,
        good: right,
        goal: None,
        calls: 500,
    },
    Task {
        name: "alternating",
        what: "hostile: −1 and 1 in turns, whatever was said",
        feed: Feed::Alternating,
        reward: |_, _, _| 0.0,
        good: right,
        goal: None,
        calls: 500,
    },
    Task {
        name: "huge",
        what: "hostile: random rewards of ±10⁶",
        feed: Feed::Huge,
        reward: |_, _, _| 0.0,
        good: right,
        goal: None,
        calls: 500,
    },
    Task {
        name: "all-wrong",
        what: "hostile: groups in which only wrong answers are rewarded",
        feed: Feed::Samples,
        reward: |_, q, t| 1.0 - as_number(is_right(q, t)),
        good: right,
        goal: None,
        calls: 500,
    },
    Task {
        name: "bad-texts",
        what: "hostile: a written right answer with −1 in each call",
        feed: Feed::BadText,
        reward: |_, _, _| -1.0,
        good: right,
        goal: None,
        calls: 500,
    },
    Task {
        name: "wrong-wanted",
        what: "hostile: single answers, thumbs up for wrong ones only",
        feed: Feed::Thumbs,
        reward: |_, q, t| 1.0 - 2.0 * as_number(is_right(q, t)),
        good: right,
        goal: None,
        calls: 500,
    },
];

/// How far a model is, on questions that it is not trained on.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Share of wanted answers at temperature 1.
    pub good: f64,
    /// Share of right greedy answers to the general questions.
    pub right: f64,
}

impl Task {
    /// Calls between looks.
    pub fn look_every(&self) -> u32 {
        if self.calls > 100 { 50 } else { 2 }
    }

    /// The groups of call `call` of the run with `seed`.
    pub fn groups(&self, world: &World, learner: &Learner, rules: &Rules, (seed, call): (u64, u32)) -> Result<Vec<Group>, Error> {
        let mut random = Random(seed.wrapping_mul(0x1_0000_0001).wrapping_add(u64::from(call)));
        let single = matches!(self.feed, Feed::Thumbs | Feed::AllBad | Feed::Alternating | Feed::BadText | Feed::Huge);
        let pool = self.questions(world, true);
        let picked = random.pick(&pool, if single { 1 } else { QUESTIONS });
        let samples = match self.feed {
            Feed::Samples | Feed::Noisy | Feed::Huge => SAMPLES,
            Feed::Mixed => SAMPLES - 2,
            Feed::Thumbs | Feed::AllBad | Feed::Alternating => 1,
            Feed::Written | Feed::BadText => 0,
        };
        let said = match samples {
            0 => vec![Vec::new(); picked.len()],
            _ => world.ask(learner, &picked, (samples, 1.0, random.next()))?,
        };
        let mut groups = Vec::with_capacity(picked.len());
        for (question, said) in picked.iter().zip(said) {
            let rated = said.into_iter().map(|said| {
                let reward = match self.feed {
                    Feed::Noisy if random.share() < NOISE => 1.0 - (self.reward)(rules, question, &said.text),
                    Feed::Alternating => {
                        if call.is_multiple_of(2) {
                            -1.0
                        } else {
                            1.0
                        }
                    }
                    Feed::Huge => 2e6 * random.share() - 1e6,
                    _ => (self.reward)(rules, question, &said.text),
                };
                (said, reward)
            });
            let mut group = world.sampled(question, rated.collect())?;
            let answer = &question.answer;
            let texts: &[(String, f64)] = match self.feed {
                Feed::Written => &[(format!("{answer}{WHOLE_ANSWER}"), 1.0), (format!("It is {answer}."), 0.0)],
                Feed::BadText => &[(format!("It is {answer}."), -1.0)],
                Feed::Mixed => &[(format!("Arr, it be {answer}, matey!"), 1.0), ("I will not say.".to_owned(), 0.0)],
                _ => &[],
            };
            for (text, reward) in texts {
                group.responses.push(world.written(question, text, *reward)?);
            }
            groups.push(group);
        }
        Ok(groups)
    }

    /// Looks at the model with draws that do not depend on the call.
    pub fn look(&self, world: &World, learner: &Learner, rules: &Rules, seed: u64) -> Result<Look, Error> {
        let questions = self.questions(world, false);
        let said = world.ask(learner, &questions, (1, 1.0, seed.wrapping_mul(7919)))?;
        let good = share(&questions, &said, |q, t| (self.good)(rules, q, t));
        let said = world.ask(learner, &world.unseen, (1, 0.0, 0))?;
        Ok(Look { good, right: share(&world.unseen, &said, is_right) })
    }

    fn questions(&self, world: &World, train: bool) -> Vec<Question> {
        match self.name {
            "arithmetic" => sums(train),
            _ => {
                if train {
                    world.train.clone()
                } else {
                    world.unseen.clone()
                }
            }
        }
    }
}

/// a + b with a above the 20 that the model was taught and b below 10, one in four held out.
fn sums(train: bool) -> Vec<Question> {
    let pairs = (21..=30).flat_map(|a| (0..=9).map(move |b| (a, b)));
    let held_out = |a: u32, b: u32| (a * 7 + b * 3).is_multiple_of(4);
    pairs
        .filter(|(a, b)| held_out(*a, *b) != train)
        .map(|(a, b)| Question { question: format!("What is {a} plus {b}?"), answer: (a + b).to_string() })
        .collect()
}

fn share(questions: &[Question], said: &[Vec<crate::world::Said>], good: impl Fn(&Question, &str) -> bool) -> f64 {
    let count = questions.iter().zip(said).filter(|(question, said)| said.iter().all(|said| good(question, &said.text))).count();
    count as f64 / questions.len() as f64
}

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `count` different ones.
    fn pick(&mut self, from: &[Question], count: usize) -> Vec<Question> {
        let mut left: Vec<&Question> = from.iter().collect();
        (0..count.min(from.len())).map(|_| left.swap_remove((self.next() % left.len() as u64) as usize).clone()).collect()
    }
}
