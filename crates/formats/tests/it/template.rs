//! Chat templates against the renders that transformers wrote, and against hostile sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tiger_formats::{ChatTemplate, Ending, FormatError, Message, Render, ToolStyle};

use crate::support::{put, refuses};

const TOKENS: [&str; 4] = ["bos_token", "eos_token", "pad_token", "unk_token"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/templates").join(name)
}

fn compile(source: &str, tokens: &Value) -> Result<ChatTemplate, FormatError> {
    let tokens = TOKENS.into_iter().filter_map(|n| tokens[n].as_str().map(|t| (n, t.to_owned()))).collect();
    ChatTemplate::compile("chat_template.jinja", source, tokens)
}

fn messages(value: &Value) -> Vec<Message> {
    let text = |m: &Value, field: &str| m[field].as_str().unwrap().to_owned();
    let own = |name: &str| ["role", "content"].contains(&name);
    let one = |m: &Value| Message {
        fields: m.as_object().unwrap().clone().into_iter().filter(|(name, _)| !own(name)).collect(),
        ..Message::new(&text(m, "role"), &text(m, "content"))
    };
    value.as_array().unwrap().iter().map(one).collect()
}

fn ask(text: &str) -> Vec<Message> {
    vec![Message::new("user", text)]
}

fn how(ending: Ending) -> Render<'static> {
    Render { ending, tools: None, now_unix_s: 1_753_869_600 }
}

fn golden_template(name: &str) -> ChatTemplate {
    let golden_file: Value = serde_json::from_slice(&std::fs::read(golden("renders.json")).unwrap()).unwrap();
    compile(&std::fs::read_to_string(golden(&format!("{name}.jinja"))).unwrap(), &golden_file["special_tokens"][name]).unwrap()
}

#[test]
fn renders_equal_those_of_transformers() {
    let file: Value = serde_json::from_slice(&std::fs::read(golden("renders.json")).unwrap()).unwrap();
    let mut templates = BTreeMap::new();
    let mut refusals = 0;
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 350);
    for case in cases {
        let (name, conversation) = (case["template"].as_str().unwrap(), case["conversation"].as_str().unwrap());
        let template = templates.entry(name).or_insert_with(|| golden_template(name));
        let ending = match case["ending"].as_str().unwrap() {
            "generation_prompt" => Ending::GenerationPrompt,
            "continue_final" => Ending::ContinueFinal,
            _ => Ending::Closed,
        };
        let now_unix_s = file["now_unix_s"].as_i64().unwrap();
        let tools = case.get("tools").map(|_| &file["tools"]);
        let result = template.render(&messages(&file["conversations"][conversation]), &Render { ending, tools, now_unix_s });
        let title = format!("{name} {conversation} {ending:?} {}", if tools.is_some() { "with tools" } else { "" });
        match (case["error"].as_str(), result) {
            (None, Ok(text)) => assert_eq!(text, case["text"].as_str().unwrap(), "{title}"),
            (Some(expected), Err(FormatError::TemplateRaised { message })) => {
                assert_eq!(message, expected, "{title}");
                refusals += 1;
            }
            (Some(expected), Err(FormatError::Invalid { .. })) if expected.contains("continue_final_message") => refusals += 1,
            (_, other) => panic!("{title}: {other:?}"),
        }
    }
    assert_eq!(refusals, cases.iter().filter(|c| c.get("error").is_some()).count());
}

#[test]
fn how_calls_are_written_is_seen_in_the_template() {
    let style = |name: &str| golden_template(name).tool_style();
    assert_eq!(
        ["thinker", "brackets", "dated", "reasoner"].map(style),
        [Some(ToolStyle::Tagged), Some(ToolStyle::Listed), Some(ToolStyle::Bare), None]
    );
}

#[test]
fn the_source_comes_from_its_own_file_first() {
    let dir = tempfile::tempdir().unwrap();
    assert!(ChatTemplate::open(dir.path()).unwrap().is_none());
    let rendered = || ChatTemplate::open(dir.path()).map(|t| t.unwrap().render(&ask("x"), &how(Ending::Closed)).unwrap());
    let config = |value: Value| put(dir.path(), "tokenizer_config.json", value.to_string());

    config(json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "{{ bos_token }}C{{ eos_token }}"}));
    assert_eq!(rendered().unwrap(), "<s>C</s>");
    config(json!({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D{{ bos_token }}"}]}));
    assert_eq!(rendered().unwrap(), "D");
    put(dir.path(), "special_tokens_map.json", r#"{"bos_token": {"content": "<old>"}}"#);
    assert_eq!(rendered().unwrap(), "D<old>");
    put(dir.path(), "chat_template.jinja", "J");
    assert_eq!(rendered().unwrap(), "J");
    std::fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    config(json!({"chat_template": null, "bos_token": null}));
    assert!(ChatTemplate::open(dir.path()).unwrap().is_none());

    for (value, part) in [
        (json!({"chat_template": [{"name": "rag", "template": "T"}]}), "rag"),
        (json!({"chat_template": 5}), "chat_template"),
        (json!({"chat_template": "x", "bos_token": 5}), "bos_token"),
        (json!({"chat_template": "{% if %}"}), "does not compile"),
        (json!({"chat_template": " ".repeat(300_000)}), "300000 bytes"),
    ] {
        config(value);
        refuses(rendered(), &["tokenizer_config.json", part]);
    }
}

#[test]
fn a_prompt_is_split_from_its_response() {
    let question = ask("Name a colour");
    for (name, response, expected) in
        [("llama3", "Blue", "Blue<|eot_id|>"), ("chatml", " Blue\n", " Blue\n<|im_end|>\n"), ("mistral", "Blue", " Blue</s>")]
    {
        let template = golden_template(name);
        let parts = template.prompt_parts(&question, response, &how(Ending::Closed));
        if name == "mistral" {
            // This family puts a space before the text that the generation prompt does not have.
            assert!(matches!(parts, Err(FormatError::NotAPrefix { .. })));
        } else {
            let parts = parts.unwrap();
            assert_eq!(parts.response, expected);
            assert_eq!(parts.prompt, template.render(&question, &how(Ending::GenerationPrompt)).unwrap());
        }
    }
    let reasoner = golden_template("reasoner");
    let result = reasoner.prompt_parts(&question, "<think>\nhm\n</think>\n\nBlue", &how(Ending::Closed));
    assert!(matches!(result, Err(FormatError::NotAPrefix { common_bytes }) if common_bytes > 20), "{result:?}");
    // What this family puts before the last answer is no part of the prompt.
    let thinker = golden_template("thinker").prompt_parts(&question, "Blue", &how(Ending::Closed));
    assert!(matches!(thinker, Err(FormatError::NotAPrefix { common_bytes }) if common_bytes > 20), "{thinker:?}");
    for (name, end) in [
        ("llama3", "<|eot_id|>"),
        ("chatml", "<|im_end|>\n"),
        ("mistral", "</s>"),
        ("reasoner", "<|end|>"),
        ("thinker", "<|im_end|>\n"),
        ("dated", "<|eot_id|>"),
        ("brackets", "</s>"),
    ] {
        assert_eq!(golden_template(name).end_of_turn(&question, &how(Ending::Closed)).unwrap(), end);
    }
    assert_eq!(reasoner.special_token("eos_token"), Some("<|end|>"));
}

#[test]
fn generation_tags_keep_their_white_space_rules() {
    let cases = [
        ("a {% generation %} b {% endgeneration %} c", "a  b  c"),
        ("a {%- generation -%} b {%- endgeneration -%} c", "abc"),
        ("a\n  {% generation %}\nb\n  {% endgeneration %}\nc", "a\nb\nc"),
        ("{% set x = '%}{% generation %}' %}{{ x }}", "%}{% with _generation = true %}"),
        ("{% generation", "{% generation"),
    ];
    for (source, expected) in cases {
        match compile(source, &json!({})).and_then(|t| t.render(&ask(""), &how(Ending::Closed))) {
            Ok(text) => assert_eq!(text, expected, "{source}"),
            Err(e) => assert!(source.ends_with("generation"), "{source}: {e}"),
        }
    }
}

#[test]
fn what_only_looks_like_a_tag_stays() {
    for (source, text) in [("a{{ '{%' }}b", "a{%b"), ("{{ '{% generation' }}", "{% generation"), ("{{ '%}' }}{# {% #}.", "%}.")] {
        let template = compile(source, &json!({})).unwrap();
        assert_eq!(template.render(&ask("x"), &how(Ending::Closed)).unwrap(), text, "{source}");
    }
    assert!(compile("{%}", &json!({})).is_err());
}

#[test]
fn hostile_templates_are_stopped() {
    let cases = [
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps"),
        ("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "text"),
        ("{% set ns = namespace(x='x') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}", "steps"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{% for i in [[]] recursive %}{{ loop([[]]) }}{% endfor %}", "recursion"),
        ("{{ 'x' * 100000000000 }}", "steps"),
        ("{{ range(1000000000) }}", "range"),
        ("{{ missing.field }}", "undefined"),
        ("{{ messages[0].content.nope() }}", "nope"),
        ("{{ 1 | tojson(indent=1000) }}", "indent"),
        ("{{ strftime_now('%Q') }}", "%Q"),
        ("{{ 1 // 0 }}", "failed"),
        ("{{ 'a'.rsplit('') }}", "empty separator"),
        ("{{ missing | tojson }}", "tojson"),
        // Doubled lists are counted in a single step; nested ones are compared, printed and dropped on the stack.
        ("{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x | length }}", "takes longer"),
    ];
    for (source, part) in cases {
        let template = compile(source, &json!({})).unwrap();
        refuses(template.render(&ask("x"), &how(Ending::Closed)), &[part]);
    }
    for (source, part) in [
        ("{{", "does not compile"),
        ("{% raise %}", "does not compile"),
        ("{% set n = namespace() %}{% set n.n = n %}{{ n }}", "the namespace n"),
        ("{% include 'chat_template' %}", "include"),
    ] {
        refuses(compile(source, &json!({})), &[part]);
    }
    // Deep source: whether it compiles does not matter, that we come back does.
    for source in [
        format!("{}x{}", "{% if 1 %}".repeat(3000), "{% endif %}".repeat(3000)),
        format!("{{{{ {} }}}}", "(".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "1+".repeat(20_000)),
        format!("{{{{ {}x }}}}", "x.y+".repeat(20_000)),
        format!("{{{{ x{} }}}}", ".x".repeat(50_000)),
        format!("{{{{ x{} }}}}", "|e".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "x if y else ".repeat(10_000)),
    ] {
        let _ = compile(&source, &json!({})).and_then(|t| t.render(&ask("x"), &how(Ending::Closed)));
    }
}

#[test]
fn long_honest_conversations_fit_the_limits() {
    let turns: Vec<Message> = (0..1000).map(|i| Message::new(["user", "assistant"][i % 2], &"word ".repeat(100))).collect();
    for name in ["llama3", "chatml", "reasoner", "mistral", "thinker", "dated", "brackets"] {
        let text = golden_template(name).render(&turns, &how(Ending::Closed)).unwrap();
        assert!(text.len() > 490_000, "{name}");
    }
    let one = ask(&"x".repeat(4_000_000));
    assert!(golden_template("llama3").render(&one, &how(Ending::Closed)).unwrap().len() > 4_000_000);
}

#[test]
fn a_message_that_looks_like_the_mark_is_continued() {
    let turns = [ask("hi"), vec![Message::new("assistant", "CONTINUE_FINAL_MESSAGE_TAG and")]].concat();
    let text = golden_template("llama3").render(&turns, &how(Ending::ContinueFinal)).unwrap();
    assert!(text.ends_with("\n\nCONTINUE_FINAL_MESSAGE_TAG and"), "{text}");
    refuses(golden_template("llama3").render(&[], &how(Ending::ContinueFinal)), &["cannot be continued"]);
    refuses(compile("fixed", &json!({})).unwrap().render(&turns, &how(Ending::ContinueFinal)), &["cannot be continued"]);
}
