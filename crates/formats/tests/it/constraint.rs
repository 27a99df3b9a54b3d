//! Constrained decoding: whatever is sampled from the masks is a value of the schema.

use std::sync::Arc;

use serde_json::{Value, json};
use tiger_formats::{CallGrammar, Constraint, TokEnv, Tokenizer};

use crate::support::refuses;
use crate::tokenizer::{byte_level, load};

const EOS: u32 = 263;
/// Beyond the tokenizer's 266: models pad their vocabulary.
const VOCAB: usize = 300;

fn env() -> (Tokenizer, TokEnv) {
    let tokenizer = load(&byte_level());
    let env = tokenizer.tok_env(&[EOS, 262], VOCAB).unwrap();
    (tokenizer, env)
}

fn allowed(mask: &[u32]) -> Vec<u32> {
    (0..32 * mask.len() as u32).filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
}

/// Follows random allowed tokens, closing strings and values early so that it ends.
fn sample(tokenizer: &Tokenizer, mut constraint: Constraint, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::new();
    for step in 0..2000 {
        let mask = constraint.mask().unwrap();
        assert_eq!(mask.len(), VOCAB.div_ceil(32));
        let ids = allowed(&mask);
        assert!(ids.iter().all(|id| (*id as usize) < VOCAB));
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let closing = ids.iter().copied().find(|id| *id == EOS || matches!(tokenizer.token_bytes(*id), b"\"" | b"}" | b"]"));
        let id = closing.filter(|_| step > 20).unwrap_or(ids[(state >> 33) as usize % ids.len()]);
        constraint.accept(id).unwrap();
        if id == EOS || id == 262 {
            assert!(constraint.is_done());
            return bytes;
        }
        bytes.extend_from_slice(tokenizer.token_bytes(id));
        if constraint.is_done() {
            return bytes;
        }
    }
    panic!("no end: {}", String::from_utf8_lossy(&bytes));
}

#[test]
fn samples_are_values_of_the_schema() {
    let (tokenizer, env) = env();
    for seed in 0..20 {
        let bytes = sample(&tokenizer, Constraint::json_object(&env).unwrap(), seed);
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(value.is_object(), "{value}");
    }
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A person",
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "minimum": 0, "maximum": 99},
            "pattern": {"enum": ["x", "y"]}, "kin": {"type": "array", "items": {"$ref": "#/$defs/kin"}, "maxItems": 2}},
        "required": ["name", "age", "pattern", "kin"],
        "additionalProperties": false,
        "$defs": {"kin": {"anyOf": [{"type": "null"}, {"const": {"unknown": 1}}]}}
    });
    for seed in 0..20 {
        let bytes = sample(&tokenizer, Constraint::json_schema(&env, &schema).unwrap(), seed);
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 4, "{value}");
        assert!(value["age"].as_u64().unwrap() <= 99);
        assert!(value["name"].as_str().unwrap().chars().count() <= 5);
        assert!(["x", "y"].contains(&value["pattern"].as_str().unwrap()));
    }
}

#[test]
fn masks_follow_the_value() {
    let (tokenizer, env) = env();
    let mut constraint =
        Constraint::json_schema(&env, &json!({"type": "object", "properties": {}, "additionalProperties": false})).unwrap();
    let open = u32::from(b'{');
    let first = allowed(&constraint.mask().unwrap());
    assert!(first.contains(&open) && !first.contains(&EOS) && !first.contains(&u32::from(b'[')), "{first:?}");
    assert!(first.iter().all(|id| !tokenizer.is_special(*id)));
    refuses(constraint.accept(u32::from(b'x')), &["schema"]);

    let mut constraint = Constraint::json_schema(&env, &json!({"const": {}})).unwrap();
    for id in [open, u32::from(b'}')] {
        assert!(!constraint.is_done());
        assert!(allowed(&constraint.mask().unwrap()).contains(&id));
        constraint.accept(id).unwrap();
    }
    assert!(constraint.is_done());
    assert_eq!(allowed(&constraint.mask().unwrap()), [262, EOS]);
    constraint.accept(EOS).unwrap();
    assert!(constraint.is_done());
    assert_eq!(allowed(&constraint.mask().unwrap()), [262, EOS]);
}

#[test]
fn line_breaks_do_not_go_on_for_ever() {
    let (_, env) = env();
    let mut constraint = Constraint::json_object(&env).unwrap();
    constraint.accept(u32::from(b'{')).unwrap();
    let mut steps = 0;
    while let Some(id) = allowed(&constraint.mask().unwrap()).into_iter().find(|id| [10, 32, 9, 13].contains(id)) {
        constraint.accept(id).unwrap();
        steps += 1;
        assert!(steps < 100);
    }
    assert!(steps > 0);
}

#[test]
fn keywords_that_cannot_be_enforced_are_named() {
    let (_, env) = env();
    let deep = (0..70).fold(json!({}), |inner, _| json!({"items": inner}));
    for (schema, parts) in [
        (json!({"type": "array", "uniqueItems": true}), &["$.uniqueItems", "not supported", "maxItems"][..]),
        (json!({"properties": {"a": {"not": {}}}}), &["$.properties.a.not"]),
        (json!({"anyOf": [{}, {"items": {"if": {}}}]}), &["$.anyOf[1].items.if"]),
        (json!({"additionalProperties": {"madeUp": 1}}), &["$.additionalProperties.madeUp"]),
        (json!({"x-guidance": {"lenient": true}}), &["x-guidance"]),
        (json!({"$ref": "https://example.com/schema"}), &["$.$ref", "within the schema"]),
        (json!({"$ref": "#/$defs/absent"}), &["schema"]),
        (json!({"type": "elephant"}), &["schema"]),
        (json!({"type": "string", "pattern": "("}), &["schema"]),
        (json!({"type": "string", "minLength": 5, "maxLength": 2}), &["schema"]),
        (json!({"properties": 5}), &["properties"]),
        (json!({"type": "string", "maxLength": 1_000_000_000}), &["$.maxLength", "10000"]),
        (json!({"description": "x".repeat(70_000)}), &["longer than 65536"]),
        (json!(true), &["must be an object"]),
        (deep, &["nested deeper"]),
    ] {
        refuses(Constraint::json_schema(&env, &schema), parts);
    }
    // Names of properties and constant values are not keywords.
    Constraint::json_schema(&env, &json!({"properties": {"not": {"const": {"if": 1}}}, "default": {"uniqueItems": 1}})).unwrap();
}

#[test]
fn hostile_schemas_end_quickly() {
    let (_, env) = env();
    let many = json!({"enum": (0..3000).map(|i| format!("value {i}")).collect::<Vec<_>>()});
    let wide = json!({"type": "string", "minLength": 9_000, "maxLength": 10_000});
    let bomb = (0..8).fold(json!({"type": "string"}), |inner, _| json!({"anyOf": [inner.clone(), {"type": "array", "items": inner}]}));
    let repeat = json!({"type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}"});
    let looped = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}});
    for schema in [many, wide, bomb, repeat, looped] {
        let _ = Constraint::json_schema(&env, &schema).and_then(|mut constraint| constraint.mask());
    }
}

#[test]
fn an_environment_is_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    fn sent<T: Send>(_: &T) {}
    let (tokenizer, env) = env();
    shared(&env);
    shared(&tokenizer);
    sent(&Constraint::json_object(&env).unwrap());
    let env = Arc::new(env);
    let masks: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let run = || Constraint::json_object(&env).unwrap().mask().unwrap();
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(masks[0], masks[1]);
    refuses(tokenizer.tok_env(&[], VOCAB), &["eos_token"]);
    refuses(tokenizer.tok_env(&[EOS], 200), &["vocab", "265", "200"]);
    refuses(tokenizer.tok_env(&[VOCAB as u32], VOCAB), &["eos_token", "outside"]);
}

/// How far a text gets, bytes, and whether it may end there.
fn follow(env: &TokEnv, calls: &CallGrammar, text: &str) -> (usize, bool) {
    let mut constraint = Constraint::calls(env, calls).unwrap();
    for (at, byte) in text.bytes().enumerate() {
        if !allowed(&constraint.mask().unwrap()).contains(&u32::from(byte)) {
            return (at, false);
        }
        constraint.accept(u32::from(byte)).unwrap();
    }
    (text.len(), constraint.is_done() || allowed(&constraint.mask().unwrap()).contains(&EOS))
}

#[test]
fn a_call_that_is_begun_is_a_call() {
    let (_, env) = env();
    let call = json!({"type": "object", "properties": {"name": {"const": "f"}, "arguments": {"type": "object",
        "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": false}}, "required": ["name", "arguments"], "additionalProperties": false});
    let tagged = CallGrammar { schema: call.clone(), marks: Some(("<tool_call>", "</tool_call>")), listed: false };
    let bare = CallGrammar { schema: call.clone(), marks: None, listed: false };
    let listed = CallGrammar { schema: call, marks: None, listed: true };
    let good = r#"{"name": "f", "arguments": {"n": 2}}"#;
    let whole = |calls: &CallGrammar, text: &str| assert_eq!(follow(&env, calls, text), (text.len(), true), "{text}");
    for calls in [&tagged, &bare, &listed] {
        for text in ["", "Hello", "a\n\n<tool\n", "  Well: {1} [2]", "1 < 2, </tool_call>, é"] {
            whole(calls, text);
        }
    }
    whole(&tagged, &format!("<tool_call>\n{good}\n</tool_call>"));
    whole(&tagged, &format!("I look.\n<tool_call>{good}</tool_call>\n<tool_call>{good}</tool_call> so"));
    whole(&tagged, "{\"name\": \"g\"}");
    whole(&bare, good);
    whole(&bare, &format!("\n {good}\n"));
    whole(&bare, "[1]");
    whole(&listed, good);
    whole(&listed, &format!("[{good}, {good}]"));
    let stopped = |calls: &CallGrammar, text: &str, at: usize| assert_eq!(follow(&env, calls, text), (at, false), "{text}");
    stopped(&tagged, "<tool_call>no", 11);
    stopped(&tagged, r#"x<tool_call>{"name": "g"}"#, 22);
    stopped(&tagged, r#"<tool_call>{"name": "f", "arguments": {"n": 3}}"#, 44);
    stopped(&tagged, "<tool_call>{", 12);
    stopped(&bare, r#" {"name": "f", "arguments": {"m"#, 30);
    stopped(&listed, "[1]", 1);
}
