//! Lines of JSON files as prompts and training examples: the forms that public data sets come in, checked before anything is sent.
//! Does not know how a model is trained.

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tiger_wire::{Message, Objective, Role, TrainGroup, TrainedResponse};

use crate::failure::Failure;

const FORMS: &str = "a line is {\"messages\": […], \"responses\": [{\"content\": …, \"reward\": …}, …]}, {\"messages\": […], \"chosen\": …, \
                     \"rejected\": …}, {\"messages\": […, an assistant message]} or {\"prompt\": …, \"completion\": …}";

/// Names that the reward's input has for itself.
const RESERVED: [&str; 4] = ["response", "stop_reason", "sample", "reasoning"];

/// A conversation to be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Line of the file, from 1.
    pub line: usize,
    /// Ends with the user.
    pub messages: Vec<Message>,
    /// The line's other fields, `prompt` included.
    pub fields: Map<String, Value>,
}

/// What a line of training data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers with rewards.
    Rated,
    /// A better and a worse answer.
    Pair,
    /// One good answer.
    Demonstration,
}

impl Kind {
    fn named(self) -> &'static str {
        match self {
            Kind::Rated => "rated answers",
            Kind::Pair => "a preference pair",
            Kind::Demonstration => "a demonstration",
        }
    }
}

/// One line of training data.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Line of the file, from 1.
    pub line: usize,
    /// Its form.
    pub kind: Kind,
    /// What is trained: of a pair first the chosen answer (reward 1), then the rejected one (0).
    pub group: TrainGroup,
}

/// A whole file, or standard input for `-`.
pub fn text(file: &str) -> Result<String, Failure> {
    let text = if file == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    text.map_err(|e| Failure::because(file, e))
}

/// Prompts of the text of `file`.
pub fn prompts(file: &str, text: &str) -> Result<Vec<Prompt>, Failure> {
    let all = lines(text, prompt).map_err(|problem| Failure::new(format!("{file}, {problem}")))?;
    if all.is_empty() {
        return Err(Failure::new(format!("{file} has no lines: each line is {{\"prompt\": \"…\"}} or {{\"messages\": […]}}")));
    }
    Ok(all)
}

/// Training examples of the text of `file`, of forms that may be trained together.
pub fn examples(file: &str, text: &str, objective: Option<Objective>) -> Result<Vec<Example>, Failure> {
    let wrong = |problem: String| Failure::new(format!("{file}, {problem}"));
    let all = lines(text, example).map_err(wrong)?;
    if all.is_empty() {
        return Err(Failure::new(format!("{file} has no lines: {FORMS}")));
    }
    check_mix(&all, objective).map_err(wrong)?;
    Ok(all)
}

fn lines<T>(text: &str, parse: impl Fn(usize, Map<String, Value>) -> Result<T, String>) -> Result<Vec<T>, String> {
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parsed = numbered.map(|(index, line)| {
        let object = serde_json::from_str(line).map_err(|e| e.to_string());
        object.and_then(|object| parse(index + 1, object)).map_err(|problem| format!("line {}: {problem}", index + 1))
    });
    parsed.collect()
}

fn prompt(line: usize, mut fields: Map<String, Value>) -> Result<Prompt, String> {
    let messages = context(&fields)?.ok_or("it needs `prompt` or `messages`")?;
    ends_with_user(&messages)?;
    fields.remove("messages");
    if let Some(name) = RESERVED.iter().find(|name| fields.contains_key(**name)) {
        return Err(format!("the field `{name}` is set for the reward by the command itself; give the line's another name"));
    }
    Ok(Prompt { line, messages, fields })
}

fn example(line: usize, fields: Map<String, Value>) -> Result<Example, String> {
    let has = |name: &str| fields.contains_key(name);
    let (kind, group) = match (has("responses"), has("chosen") || has("rejected"), has("completion")) {
        (true, false, false) => (Kind::Rated, rated(fields)?),
        (false, true, false) => (Kind::Pair, pair(&fields)?),
        (false, false, _) if has("messages") || has("prompt") => (Kind::Demonstration, demonstration(&fields)?),
        (false, false, _) => return Err(format!("it has no `messages` or `prompt`; {FORMS}")),
        _ => return Err("it mixes forms: give either `responses`, or `chosen` and `rejected`, or `completion`".into()),
    };
    ends_with_user(&group.messages)?;
    Ok(Example { line, kind, group })
}

fn rated(mut fields: Map<String, Value>) -> Result<TrainGroup, String> {
    /// What is no prompt must be known: a misspelt name is an error.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rated {
        responses: Vec<TrainedResponse>,
    }
    let messages = context(&fields)?.ok_or("it needs `messages` or `prompt`")?;
    fields.remove("messages");
    fields.remove("prompt");
    let Rated { responses } = serde_json::from_value(Value::Object(fields)).map_err(|e| e.to_string())?;
    if responses.is_empty() {
        return Err("responses is empty; give at least one with a reward".into());
    }
    Ok(TrainGroup { messages, responses })
}

fn pair(fields: &Map<String, Value>) -> Result<TrainGroup, String> {
    let given = context(fields)?;
    let part = |name: &str| {
        let value = fields.get(name).ok_or_else(|| format!("it lacks `{name}`: a preference pair has `chosen` and `rejected`"))?;
        answer(name, value, given.as_deref())
    };
    let ((messages, chosen), (other, rejected)) = (part("chosen")?, part("rejected")?);
    if messages != other {
        return Err("`chosen` and `rejected` answer different conversations".into());
    }
    if chosen == rejected {
        return Err("`chosen` and `rejected` are the same text: there is nothing to prefer; leave the line out".into());
    }
    let response = |content, reward| TrainedResponse { content: Some(content), response_id: None, reward };
    Ok(TrainGroup { messages, responses: vec![response(chosen, 1.0), response(rejected, 0.0)] })
}

fn demonstration(fields: &Map<String, Value>) -> Result<TrainGroup, String> {
    let given = context(fields)?;
    let (messages, content) = match fields.get("completion") {
        Some(completion) => answer("completion", completion, given.as_deref())?,
        None => split_last("messages", given.unwrap_or_default())?,
    };
    not_empty("the answer", &content)?;
    Ok(TrainGroup { messages, responses: vec![TrainedResponse { content: Some(content), response_id: None, reward: 1.0 }] })
}

/// `messages`, else `prompt` as one text of the user or as a list.
fn context(fields: &Map<String, Value>) -> Result<Option<Vec<Message>>, String> {
    match (fields.get("messages"), fields.get("prompt")) {
        (Some(messages), _) => list("messages", messages).map(Some),
        (None, Some(Value::String(text))) => Ok(Some(vec![Message::new(Role::User, text.as_str())])),
        (None, Some(prompt)) => list("prompt", prompt).map(Some),
        (None, None) => Ok(None),
    }
}

fn list(name: &str, value: &Value) -> Result<Vec<Message>, String> {
    Vec::<Message>::deserialize(value).map_err(|e| format!("`{name}`: {e}"))
}

/// An answer with the conversation that it answers: a text, an assistant message, or a list of messages that ends with one and may begin
/// with the whole conversation.
fn answer(name: &str, value: &Value, given: Option<&[Message]>) -> Result<(Vec<Message>, String), String> {
    let (before, content) = match value {
        Value::String(text) => (Vec::new(), text.clone()),
        Value::Object(_) => split_last(name, list(name, &Value::Array(vec![value.clone()]))?)?,
        other => split_last(name, list(name, other)?)?,
    };
    not_empty(name, &content)?;
    match given {
        None if before.is_empty() => Err(format!("it needs `messages` or `prompt`: what does `{name}` answer?")),
        None => Ok((before, content)),
        Some(given) if before.is_empty() => Ok((given.to_vec(), content)),
        Some(given) if before.ends_with(given) => Ok((before, content)),
        Some(_) => Err(format!("`{name}` holds another conversation than the line's `messages` or `prompt`")),
    }
}

fn not_empty(name: &str, content: &str) -> Result<(), String> {
    if content.is_empty() { Err(format!("`{name}` is empty: there is nothing to learn")) } else { Ok(()) }
}

fn split_last(name: &str, mut messages: Vec<Message>) -> Result<(Vec<Message>, String), String> {
    match messages.pop() {
        Some(last) if last.role == Role::Assistant => Ok((messages, last.content)),
        _ => Err(format!("`{name}` must end with an assistant message: the answer to be learnt")),
    }
}

fn ends_with_user(messages: &[Message]) -> Result<(), String> {
    match messages.last() {
        Some(last) if last.role == Role::User => Ok(()),
        Some(_) => Err("the conversation must end with the user's message, which is answered".into()),
        None => Err("the conversation is empty".into()),
    }
}

/// A demonstration has nothing to be compared with, so it asks for another objective than comparisons do.
fn check_mix(examples: &[Example], objective: Option<Objective>) -> Result<(), String> {
    let demonstration = examples.iter().find(|e| e.kind == Kind::Demonstration);
    let compared = examples.iter().find(|e| e.kind != Kind::Demonstration);
    match (demonstration, compared, objective) {
        (None, ..) | (_, _, Some(Objective::Sft)) => Ok(()),
        (Some(demonstration), Some(compared), _) => Err(format!(
            "line {} is {} and line {} is {}: train them in two runs, or with --objective sft, which learns the best answers of both",
            demonstration.line,
            demonstration.kind.named(),
            compared.line,
            compared.kind.named()
        )),
        (Some(demonstration), None, Some(Objective::Ppo | Objective::ImportanceSampling)) => Err(format!(
            "line {} is a demonstration, and this objective compares with the probabilities of a sampler; leave --objective out (sft)",
            demonstration.line
        )),
        (Some(_), None, _) => Ok(()),
    }
}

/// Cuts a share off, at least one and not all: those whose conversations have the smallest hashes, so that neither order nor seed
/// matters and equal conversations stay together. First what stays, then what was cut off.
pub fn cut<T>(items: Vec<T>, share: f64, messages: impl Fn(&T) -> &[Message]) -> Result<(Vec<T>, Vec<T>), Failure> {
    let wanted = ((items.len() as f64 * share).round() as usize).max(1);
    let hash = |item: &T| {
        let mut hash = Sha256::new();
        for message in messages(item) {
            hash.update(format!("{:?}\n{}\n", message.role, message.content));
        }
        <[u8; 32]>::from(hash.finalize())
    };
    let mut keyed: Vec<([u8; 32], T)> = items.into_iter().map(|item| (hash(&item), item)).collect();
    let mut hashes: Vec<[u8; 32]> = keyed.iter().map(|(hash, _)| *hash).collect();
    hashes.sort_unstable();
    let limit = hashes.get(wanted - 1).copied().unwrap_or([0xff; 32]);
    let cut: Vec<T> = keyed.extract_if(.., |(hash, _)| *hash <= limit).map(|(_, item)| item).collect();
    if keyed.is_empty() {
        return Err(Failure::new(
            "the file has too few different prompts to hold some of them out; give more lines, or a file of held-out ones",
        ));
    }
    Ok((keyed.into_iter().map(|(_, item)| item).collect(), cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<Example, String> {
        let mut parsed = lines(line, example)?;
        Ok(parsed.remove(0))
    }

    fn user(text: &str) -> Message {
        Message::new(Role::User, text)
    }

    #[test]
    fn mistakes_name_their_line() {
        let good = r#"{"messages":[{"role":"user","content":"a"}],"responses":[{"content":"b","reward":1}]}"#;
        let parse = |text: &str| examples("f", text, None).map(|e| e.len()).map_err(|e| e.message);
        assert_eq!(parse(&format!("{good}\n\n{good}\n")), Ok(2));
        assert!(parse(&format!("{good}\n{{}}\n")).unwrap_err().starts_with("f, line 2: it has no `messages` or `prompt`"));
        assert!(parse(&good.replace("reward", "rewrad")).unwrap_err().contains("rewrad"));
        assert!(parse(&good.replace("\"responses\"", "\"note\":1,\"responses\"")).unwrap_err().contains("unknown field `note`"));
        assert!(parse("\n").unwrap_err().contains("no lines"));
        assert!(parse("[1]").unwrap_err().starts_with("f, line 1: invalid type"));
    }

    #[test]
    fn pairs_come_in_the_forms_of_public_data_sets() {
        let want = one(r#"{"prompt":"q","chosen":"a","rejected":"b"}"#).unwrap();
        assert_eq!((want.kind, &want.group.messages), (Kind::Pair, &vec![user("q")]));
        let rewards: Vec<_> = want.group.responses.iter().map(|r| (r.content.as_deref().unwrap(), r.reward)).collect();
        assert_eq!(rewards, [("a", 1.0), ("b", 0.0)]);
        for same in [
            r#"{"messages":[{"role":"user","content":"q"}],"chosen":{"role":"assistant","content":"a"},"rejected":"b"}"#,
            r#"{"prompt":[{"role":"user","content":"q"}],"chosen":[{"role":"assistant","content":"a"}],"rejected":[{"role":"assistant","content":"b"}],"score":3}"#,
            r#"{"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]}"#,
            r#"{"prompt":"q","chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]}"#,
        ] {
            assert_eq!(one(same).unwrap(), want, "{same}");
        }
        for (line, says) in [
            (r#"{"prompt":"q","chosen":"a"}"#, "lacks `rejected`"),
            (r#"{"prompt":"q","chosen":"a","rejected":"a"}"#, "same text"),
            (r#"{"chosen":"a","rejected":"b"}"#, "needs `messages` or `prompt`"),
            (r#"{"prompt":"q","chosen":"a","rejected":""}"#, "`rejected` is empty"),
            (r#"{"prompt":"q","chosen":"a","rejected":[{"role":"user","content":"b"}]}"#, "must end with an assistant message"),
            (
                r#"{"prompt":"q","chosen":"a","rejected":[{"role":"user","content":"z"},{"role":"assistant","content":"b"}]}"#,
                "another conversation",
            ),
            (r#"{"prompt":"q","chosen":"a","rejected":"b","responses":[]}"#, "mixes forms"),
        ] {
            let problem = one(line).unwrap_err();
            assert!(problem.starts_with("line 1: ") && problem.contains(says), "{line}: {problem}");
        }
    }

    #[test]
    fn demonstrations_are_conversations_or_completions() {
        let want = one(r#"{"prompt":"q","completion":"a"}"#).unwrap();
        assert_eq!((want.kind, &want.group.messages, want.group.responses.len()), (Kind::Demonstration, &vec![user("q")], 1));
        assert_eq!(one(r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#).unwrap(), want);
        assert!(one(r#"{"messages":[{"role":"user","content":"q"}]}"#).unwrap_err().contains("must end with an assistant message"));
        assert!(one(r#"{"messages":[{"role":"assistant","content":"a"}]}"#).unwrap_err().contains("conversation is empty"));
    }

    #[test]
    fn forms_that_ask_for_different_objectives_are_not_mixed() {
        let mixed = "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}\n{\"prompt\":\"q\",\"completion\":\"a\"}";
        let problem = examples("f", mixed, None).unwrap_err().message;
        assert!(problem.starts_with("f, line 2 is a demonstration and line 1 is a preference pair"), "{problem}");
        assert_eq!(examples("f", mixed, Some(Objective::Sft)).unwrap().len(), 2);
        let alone = "{\"prompt\":\"q\",\"completion\":\"a\"}";
        assert!(examples("f", alone, Some(Objective::Ppo)).unwrap_err().message.contains("line 1 is a demonstration"));
        assert!(examples("f", alone, None).is_ok());
    }

    #[test]
    fn prompts_keep_their_fields_for_the_reward() {
        let text = "{\"prompt\":\"q\",\"answer\":7}\n{\"messages\":[{\"role\":\"user\",\"content\":\"r\"}],\"tests\":[1]}";
        let got = prompts("f", text).unwrap();
        assert_eq!((got[0].messages.as_slice(), got[0].fields["answer"].clone()), ([user("q")].as_slice(), 7.into()));
        assert_eq!(got[1].fields.keys().collect::<Vec<_>>(), ["tests"]);
        for (line, says) in [
            (r#"{"question":"q"}"#, "needs `prompt` or `messages`"),
            (r#"{"prompt":"q","response":"a"}"#, "`response` is set for the reward"),
            (r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#, "must end with the user"),
        ] {
            let problem = prompts("f", line).unwrap_err().message;
            assert!(problem.starts_with("f, line 1: ") && problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn a_cut_depends_on_the_conversations_alone() {
        let all: Vec<Vec<Message>> = (0..50).map(|i| vec![user(&format!("question {}", i % 40))]).collect();
        let (rest, held) = cut(all.clone(), 0.1, |m| m).unwrap();
        assert!(rest.len() + held.len() == 50 && (5..=6).contains(&held.len()), "{}", held.len());
        assert!(held.iter().all(|m| !rest.contains(m)), "equal conversations stay together");
        let (_, mut again) = cut(all.into_iter().rev().collect(), 0.1, |m| m).unwrap();
        again.reverse();
        assert_eq!(again, held);
        assert!(cut(vec![vec![user("a")], vec![user("a")]], 0.5, |m| m).is_err());
    }
}
