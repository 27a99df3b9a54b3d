//! Tools of `/openai/v1/chat/completions`, on templates of three manners that know tools and on one that does not.

use serde_json::{Value, json};
use tempfile::TempDir;
use tiger_server::App;
use tiger_testkit::Tiny;

use crate::harness::{Options, Server, config, user};
use crate::openai::{events, good, refusal, with};

const CHAT: &str = "/openai/v1/chat/completions";

/// In the manner of Hermes and Qwen.
const HERMES: &str = "{%- if tools %}{{ '<|system|>' + tools | tojson + ' in <tool_call>JSON</tool_call><|end|>' }}{% endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|user|>=' + message.content + '<|end|>' }}
    {%- elif message.tool_calls %}
        {{- '<|assistant|>' + message.content }}
        {%- for call in message.tool_calls %}
            {{- '<tool_call>' + call.function.name + (call.function.arguments | tojson) + '</tool_call>' }}
        {%- endfor %}
        {{- '<|end|>' }}
    {%- else %}
        {{- '<|' + message.role + '|>' + message.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// In the manner of Mistral: the tools before the last message of the user, calls as a list, results by the call's id.
const MISTRAL: &str = "{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if tools is not none and loop.last %}{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
        {{- '[INST] ' + message.content + '[/INST]' }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in message.tool_calls %}
            {%- if call.id | length < 6 %}{{ raise_exception('a short id') }}{% endif %}
            {{- (call.function | tojson)[:-1] + ', \\'id\\': \\'' + call.id + '\\'}' }}{{ ', ' if not loop.last else ']' }}
        {%- endfor %}
        {{- '<|end|>' }}
    {%- elif message.role == 'tool' %}
        {{- '[TOOL_RESULTS] {\\'content\\': ' + (message.content | string) + ', \\'call_id\\': \\'' + message.tool_call_id + '\\'}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- ' ' + message.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}";

/// In the manner of Llama 3.1: the tools with the first message of the user, one bare call with `parameters`.
const LLAMA: &str = "{%- set system = '' %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set messages = messages[1:] %}{% endif %}
{{- '<|system|>' + system + '<|end|>' }}
{%- if tools is not none %}
    {%- set first = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
    {{- '<|user|>Functions:\\n' }}
    {%- for tool in tools %}{{ tool | tojson(indent=4) + '\\n' }}{% endfor %}
    {{- first + '<|end|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role in ['user', 'assistant'] and not message.tool_calls %}
        {{- '<|' + message.role + '|>' + message.content | trim + '<|end|>' }}
    {%- elif message.tool_calls %}
        {%- if message.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|assistant|>{\\'name\\': \\'' + call.name + '\\', \\'parameters\\': ' + call.arguments | tojson + '}<|end|>' }}
    {%- elif message.role == 'tool' or message.role == 'ipython' %}
        {{- '<|user|>=' + (message.content | tojson) + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// With a template that knows tools, or the usual one.
async fn server(template: Option<&str>) -> (Server, TempDir) {
    let dir = tempfile::tempdir().expect("folder");
    let options = Options { tiny: Tiny { context: 2048, ..Tiny::default() }, ..Options::default() };
    let config = config(dir.path(), &options);
    if let Some(template) = template {
        std::fs::write(dir.path().join("tiny/chat_template.jinja"), template).expect("template");
    }
    (Server::of(App::open(config).await.expect("app")).await, dir)
}

fn tools() -> Value {
    let parameters =
        json!({"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"], "additionalProperties": false});
    let count = json!({"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": false});
    json!([
        {"type": "function", "function": {"name": "weather", "description": "Of a city", "parameters": parameters}},
        {"type": "function", "function": {"name": "answer", "parameters": count}},
    ])
}

fn request(extra: &Value) -> Value {
    let body = json!({"model": "Tiny", "messages": user("hello"), "max_tokens": 200, "seed": 5, "temperature": 1.0, "top_p": 1.0, "tools": tools()});
    with(body, extra)
}

/// The prompt is exactly this text: it is answered in the same words.
async fn has_prompt(server: &Server, body: &Value, prompt: &str) {
    let body = with(body.clone(), &json!({"max_tokens": 12}));
    let chat = good(server, CHAT, &body).await;
    let plain = json!({"model": "Tiny", "prompt": prompt, "max_tokens": 12, "seed": 5, "temperature": 1.0, "top_p": 1.0});
    let plain = good(server, "/openai/v1/completions", &plain).await;
    assert_eq!(chat["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"], "{prompt}");
    assert_eq!(chat["choices"][0]["message"]["content"], plain["choices"][0]["text"], "{prompt}");
    assert!(["stop", "length"].contains(&chat["choices"][0]["finish_reason"].as_str().expect("reason")));
}

fn check_call(call: &Value, name: Option<&str>) {
    assert!(call["id"].as_str().is_some_and(|id| id.starts_with("call_")) && call["type"] == "function", "{call}");
    let called = call["function"]["name"].as_str().expect("name");
    assert!(name.is_none_or(|name| name == called), "{call}");
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().expect("text")).expect("JSON");
    match called {
        "weather" => assert!(["Oslo", "Rome"].contains(&arguments["city"].as_str().expect("city")), "{call}"),
        "answer" => assert!(arguments["yes"].is_boolean(), "{call}"),
        _ => panic!("{call}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forced_calls_fit_their_schema() {
    for template in [Some(HERMES), Some(MISTRAL), Some(LLAMA), None] {
        let (server, _dir) = server(template).await;
        let named = json!({"type": "function", "function": {"name": "weather"}});
        let mut called = std::collections::BTreeSet::new();
        for (choice, name) in [(json!("required"), None), (named, Some("weather"))] {
            for seed in 0..6 {
                let body = request(&json!({"tool_choice": choice, "seed": seed}));
                let whole = good(&server, CHAT, &body).await["choices"][0].clone();
                assert_eq!((&whole["finish_reason"], &whole["message"]["content"]), (&json!("tool_calls"), &Value::Null), "{whole}");
                let calls = whole["message"]["tool_calls"].as_array().expect("calls");
                assert_eq!(calls.len(), 1);
                check_call(&calls[0], name);
                called.insert(calls[0]["function"]["name"].to_string());
                let streamed = events(&server, CHAT, &body).await;
                let chunks: Vec<Value> =
                    streamed[..streamed.len() - 1].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
                let told: Vec<&Value> = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"].get("tool_calls")).collect();
                assert_eq!((told.len(), &told[0][0]["index"], &told[0][0]["function"]), (1, &json!(0), &calls[0]["function"]));
                assert!(chunks.iter().all(|chunk| chunk["choices"][0]["delta"]["content"].as_str().is_none_or(str::is_empty)));
                assert_eq!(chunks.last().expect("end")["choices"][0]["finish_reason"], "tool_calls");
            }
        }
        assert_eq!(called.len(), 2, "`required` leaves the choice to the model");
        let cut = good(&server, CHAT, &request(&json!({"tool_choice": "required", "max_tokens": 3}))).await["choices"][0].clone();
        assert_eq!((&cut["finish_reason"], &cut["message"]["tool_calls"]), (&json!("length"), &Value::Null), "half a call is none");
        let refused = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "uniqueItems": true}}}]);
        let answer = server.post(CHAT, &request(&json!({"tools": refused, "tool_choice": "required"}))).await;
        assert_eq!(refusal(&answer), (400, "invalid_request_error", "unsupported_schema", Some("tools")), "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_knows_tools_shows_them() {
    let (server, _dir) = server(Some(HERMES)).await;
    let shown = "[{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Of a city\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"enum\": [\"Oslo\", \"Rome\"]}}, \"required\": [\"city\"], \"additionalProperties\": false}}}, {\"type\": \"function\", \"function\": {\"name\": \"answer\", \"parameters\": {\"type\": \"object\", \"properties\": {\"yes\": {\"type\": \"boolean\"}}, \"required\": [\"yes\"], \"additionalProperties\": false}}}]";
    let head = format!("<|system|>{shown} in <tool_call>JSON</tool_call><|end|>");
    has_prompt(&server, &request(&json!({})), &format!("{head}<|user|>hello<|end|><|assistant|>")).await;
    has_prompt(&server, &request(&json!({"tool_choice": "auto"})), &format!("{head}<|user|>hello<|end|><|assistant|>")).await;
    has_prompt(&server, &request(&json!({"tool_choice": "none"})), "<|user|>hello<|end|><|assistant|>").await;
    has_prompt(&server, &request(&json!({"tools": []})), "<|user|>hello<|end|><|assistant|>").await;
    let told =
        "<|user|>hello<|end|><|assistant|><tool_call>weather{\"city\": \"Oslo\"}</tool_call><|end|><|user|>=cold<|end|><|assistant|>";
    has_prompt(&server, &request(&json!({"messages": conversation()})), &format!("{head}{told}")).await;
    has_prompt(&server, &request(&json!({"messages": conversation(), "tools": null})), told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_of_other_manners_show_them() {
    let conversation = || json!({"messages": conversation(), "tools": [tools()[1]]});
    let shown = "{\"type\": \"function\", \"function\": {\"name\": \"answer\", \"parameters\": {\"type\": \"object\", \"properties\": {\"yes\": {\"type\": \"boolean\"}}, \"required\": [\"yes\"], \"additionalProperties\": false}}}";
    let (mistral, _dir) = server(Some(MISTRAL)).await;
    let asked = format!("[AVAILABLE_TOOLS] [{shown}][/AVAILABLE_TOOLS][INST] hello[/INST]");
    has_prompt(&mistral, &request(&json!({"tools": [tools()[1]]})), &asked).await;
    let told = "[INST] hello[/INST][TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}, 'id': 'call_1'}]<|end|>[TOOL_RESULTS] {'content': cold, 'call_id': 'call_1'}[/TOOL_RESULTS]";
    has_prompt(&mistral, &request(&conversation()), told).await;
    let (llama, _dir) = server(Some(LLAMA)).await;
    let indented = serde_json::to_string_pretty(&serde_json::from_str::<Value>(shown).expect("JSON")).expect("JSON").replace("  ", "    ");
    let told = format!(
        "<|system|><|end|><|user|>Functions:\n{indented}\nhello<|end|><|assistant|>{{'name': 'weather', 'parameters': {{\"city\": \"Oslo\"}}}}<|end|><|user|>=\"cold\"<|end|><|assistant|>"
    );
    has_prompt(&llama, &request(&conversation()), &told).await;
}

/// Where a tool asks for strictness, an answer that begins as a call is one, though the model may as well say something.
#[tokio::test(flavor = "multi_thread")]
async fn strict_calls_fit_their_schema_though_none_is_forced() {
    let mut strict = tools();
    strict[0]["function"]["strict"] = Value::Bool(true);
    let (server, _dir) = server(Some(LLAMA)).await;
    let (mut calls, mut texts) = (0, 0);
    for seed in 0..5 {
        let body = request(&json!({"tools": strict, "seed": seed, "n": 64, "temperature": 2.0, "max_tokens": 120}));
        for choice in good(&server, CHAT, &body).await["choices"].as_array().expect("choices") {
            let text = choice["message"]["content"].as_str().unwrap_or_default();
            match choice["message"]["tool_calls"].as_array() {
                Some(all) => all.iter().for_each(|call| check_call(call, None)),
                None => assert!(!text.trim_start().starts_with('{') || choice["finish_reason"] == "length", "{choice}"),
            }
            calls += usize::from(choice["finish_reason"] == "tool_calls");
            texts += usize::from(!text.is_empty());
        }
    }
    assert!(calls > 0 && texts > 200, "{calls} calls, {texts} texts");
    // A format that is refused is the format's fault.
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "uniqueItems": true}}});
    let answer = server.post(CHAT, &request(&json!({"tools": strict, "response_format": format}))).await;
    assert_eq!(answer.body["error"]["param"], "response_format.json_schema.schema", "{}", answer.body);
}

fn conversation() -> Value {
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}});
    json!([
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "cold"},
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_without_tools_is_told_in_words() {
    let (server, _dir) = server(None).await;
    let plain = "<|begin|><|user|>hello<|end|><|assistant|>";
    has_prompt(&server, &request(&json!({"tool_choice": "none"})), plain).await;
    let auto = good(&server, CHAT, &request(&json!({"max_tokens": 1}))).await["usage"]["prompt_tokens"].as_u64();
    assert!(auto.is_some_and(|tokens| tokens > 300), "the tools are in the system message: {auto:?}");
    let call = "{\"name\":\"weather\",\"arguments\":{\"city\":\"Oslo\"}}";
    let told = format!("<|begin|><|user|>hello<|end|><|assistant|>{call}<|end|><|user|>Result of weather:\ncold");
    let mut messages = conversation();
    has_prompt(&server, &request(&json!({"messages": messages, "tools": null})), &format!("{told}<|end|><|assistant|>")).await;
    // The usual template wants turns: what the user adds is part of the same one.
    messages.as_array_mut().expect("messages").push(json!({"role": "user", "content": "so?"}));
    has_prompt(&server, &request(&json!({"messages": messages, "tools": null})), &format!("{told}\n\nso?<|end|><|assistant|>")).await;
    let mut unanswered = conversation();
    unanswered.as_array_mut().expect("messages").pop();
    let refused = server.post(CHAT, &request(&json!({"messages": unanswered}))).await;
    assert_eq!(refusal(&refused), (400, "invalid_request_error", "invalid_messages", Some("messages[1].tool_calls")));
    let mut broken = conversation();
    broken[1]["tool_calls"][0]["function"]["arguments"] = json!("{");
    let refused = server.post(CHAT, &request(&json!({"messages": broken}))).await;
    let param = Some("messages[1].tool_calls[0].function.arguments");
    assert_eq!(refusal(&refused), (400, "invalid_request_error", "invalid_parameter", param));
}
