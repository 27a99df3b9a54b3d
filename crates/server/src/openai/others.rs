//! Parameters of OpenAI's requests that this server has no use for: at values that change nothing they are taken, at any other they are refused
//! by name, so that nobody believes in what does not happen. Does not know the parameters that are used.

use serde_json::{Map, Value, json};

use crate::error::{ApiError, quoted};

/// Values of a parameter that change nothing here.
#[derive(Debug, Clone, Copy)]
pub enum Fine {
    /// Accounting, hints of latency and caches, defaults spelt out.
    Any,
    /// The number 0.
    Zero,
    /// The number 1.
    One,
    /// `false`.
    False,
    /// `""`.
    EmptyText,
    /// `[]`.
    EmptyList,
    /// `{}`.
    EmptyObject,
    /// A list of `"text"`.
    TextOnly,
    /// A list without log-probabilities: what else it may name belongs to tools and thoughts, which come unasked or not at all.
    WithoutLogprobs,
}

/// What `include` of a response may not ask for.
const LOGPROBS: &str = "message.output_text.logprobs";

impl Fine {
    fn holds(self, value: &Value) -> bool {
        let list = |fits: &dyn Fn(&Value) -> bool| value.as_array().is_some_and(|all| all.iter().all(fits));
        value.is_null()
            || match self {
                Fine::Any => true,
                Fine::Zero => value.as_f64() == Some(0.0),
                Fine::One => value.as_f64() == Some(1.0),
                Fine::False => value.as_bool() == Some(false),
                Fine::EmptyText => value.as_str() == Some(""),
                Fine::EmptyList => value.as_array().is_some_and(Vec::is_empty),
                Fine::EmptyObject => value.as_object().is_some_and(Map::is_empty),
                Fine::TextOnly => list(&|one| one == "text"),
                Fine::WithoutLogprobs => list(&|one| one != LOGPROBS),
            }
    }

    /// The same as a JSON schema.
    fn schema(self) -> Value {
        let mut schema = match self {
            Fine::Any => return json!({"description": "Taken; it changes nothing here"}),
            Fine::Zero => json!({"enum": [0, null]}),
            Fine::One => json!({"enum": [1, null]}),
            Fine::False => json!({"enum": [false, null]}),
            Fine::EmptyText => json!({"enum": ["", null]}),
            Fine::EmptyList => json!({"type": ["array", "null"], "items": {}, "maxItems": 0}),
            Fine::EmptyObject => json!({"type": ["object", "null"], "additionalProperties": false}),
            Fine::TextOnly => json!({"type": ["array", "null"], "items": {"enum": ["text"]}}),
            Fine::WithoutLogprobs => json!({"type": ["array", "null"], "items": {"not": {"const": LOGPROBS}}}),
        };
        schema["description"] = Value::from("Taken where it changes nothing; any other value is refused");
        schema
    }
}

/// Of every request.
const COMMON: [(&str, Fine); 21] = [
    ("user", Fine::Any),
    ("metadata", Fine::Any),
    ("safety_identifier", Fine::Any),
    ("prompt_cache_key", Fine::Any),
    ("prompt_cache_retention", Fine::Any),
    ("service_tier", Fine::Any),
    ("reasoning_effort", Fine::Any),
    ("verbosity", Fine::Any),
    ("parallel_tool_calls", Fine::Any),
    ("prediction", Fine::Any),
    ("truncation", Fine::Any),
    ("frequency_penalty", Fine::Zero),
    ("presence_penalty", Fine::Zero),
    ("logit_bias", Fine::EmptyObject),
    ("store", Fine::False),
    ("background", Fine::False),
    ("echo", Fine::False),
    ("modalities", Fine::TextOnly),
    ("best_of", Fine::One),
    ("include", Fine::WithoutLogprobs),
    ("suffix", Fine::EmptyText),
];

/// Of `POST /openai/v1/responses` besides: what belongs to tools and to stored conversations.
pub const OF_RESPONSES: [(&str, Fine); 8] = [
    ("tools", Fine::EmptyList),
    ("previous_response_id", Fine::EmptyText),
    ("conversation", Fine::EmptyText),
    ("prompt", Fine::EmptyText),
    ("tool_choice", Fine::Any),
    ("reasoning", Fine::Any),
    ("max_tool_calls", Fine::Any),
    ("top_logprobs", Fine::Zero),
];

/// Refuses parameters that are unknown or that this server cannot honour. Null is as good as absent. `also` is the endpoint's own list.
pub fn check(rest: &Map<String, Value>, also: &[(&str, Fine)]) -> Result<(), ApiError> {
    for (name, value) in rest {
        let known = COMMON.iter().chain(also).find(|(known, _)| known == name);
        let message = match known {
            None if value.is_null() => continue,
            Some((_, fine)) if fine.holds(value) => continue,
            Some(_) if also.iter().any(|(own, _)| own == name) => format!(
                "{} is not supported here: responses are text only and not stored; use chat/completions, or send the whole conversation as `input`",
                quoted(name)
            ),
            Some(_) => format!("{} is not supported by this server; leave it out", quoted(name)),
            None => format!(
                "{} is not a parameter that this server knows; leave it out, or look for its spelling at /openapi.json",
                quoted(name)
            ),
        };
        return Err(ApiError::invalid(name.clone(), message));
    }
    Ok(())
}

/// The parameters for the OpenAPI document: name → schema. `also` is the endpoint's own list.
pub fn properties(also: &[(&str, Fine)]) -> impl Iterator<Item = (String, Value)> {
    COMMON.iter().chain(also).map(|(name, fine)| ((*name).to_owned(), fine.schema()))
}
