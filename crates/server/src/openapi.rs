//! The OpenAPI document: its head, and what holds for every operation and would be said again at each: how to authenticate and the errors that
//! come with it, with a body, with a path. The rest comes from the handlers and the wire types.

use serde_json::{Map, Value, json};
use tiger_wire::limits::{CSRF_HEADER, DEFAULT_PORT, EVENT_STREAM, MAX_STOP_STRINGS};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, ServerBuilder};

use crate::auth::SESSION_COOKIE;
use crate::openai::{self, others};

/// Name of the security scheme of programs.
const API_KEY: &str = "api_key";
/// Name of the security scheme of the Playground's page.
const SESSION: &str = "session";

/// Title, version, server, how to authenticate.
pub fn head() -> OpenApi {
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key: `tiger_` and 43 characters"));
    let cookie = ApiKeyValue::with_description(SESSION_COOKIE, "The Playground's session, set by `POST /api/session`");
    let info = InfoBuilder::new()
        .title("TigerCity")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Generate with language models, and teach your own by giving rewards to their responses. Every answer has the header `x-request-id`.",
        ))
        .license(Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build()));
    let schemes = ComponentsBuilder::new()
        .security_scheme(API_KEY, SecurityScheme::Http(key.build()))
        .security_scheme(SESSION, SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([ServerBuilder::new().url(format!("http://localhost:{DEFAULT_PORT}")).build()]))
        .components(Some(schemes.build()))
        .build()
}

/// The document as it is served: that of the handlers, with what holds for all of them.
pub fn finish(document: &OpenApi) -> serde_json::Result<Value> {
    let mut document = serde_json::to_value(document)?;
    for (path, operations) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            complete(path, method, operation);
        }
    }
    let schemas = &mut document["components"]["schemas"];
    schemas["ImportForm"]["additionalProperties"] = Value::Bool(false);
    for (schema, also) in
        [("ChatCompletionRequest", &[][..]), ("CompletionRequest", &[][..]), ("ResponseRequest", &others::OF_RESPONSES[..])]
    {
        let schema = &mut schemas[schema];
        schema["additionalProperties"] = Value::Bool(false);
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.extend(others::properties(also).filter(|(name, _)| !properties.contains_key(name)).collect::<Map<_, _>>());
        }
    }
    merge(schemas);
    for (place, bounds) in BOUNDS {
        if let Some(schema) = document.pointer_mut(&format!("/components/schemas/{place}")) {
            for (name, number) in bounds {
                schema[*name] = Value::from(*number);
            }
        }
    }
    bound_integers(&mut document);
    Ok(document)
}

/// Before OpenAPI 3.2 the schema of an event stream is that of one event, whose data is JSON text; OpenAI's streams end with a word.
fn describe_events(path: &str, content: &mut Value) {
    let chunk = content["schema"].take();
    let json_text = json!({"type": "string", "contentMediaType": "application/json", "contentSchema": chunk});
    let data = if path.ends_with("completions") { json!({"anyOf": [{"const": "[DONE]"}, json_text]}) } else { json_text };
    content["schema"] = json!({"type": "object", "properties": {"event": {"type": "string"}, "data": data}});
}

/// Says in numbers what the formats of integers say by name, for readers that know only the standard's own formats.
fn bound_integers(value: &mut Value) {
    // What the library writes is no name of the format registry.
    let bound = match value.get("format").and_then(Value::as_str) {
        Some("u-int8") => Some(("uint8", u64::from(u8::MAX))),
        Some("u-int32") => Some(("uint32", u64::from(u32::MAX))),
        Some("u-int64") => Some(("uint64", u64::MAX)),
        _ => None,
    };
    if let (Some((format, largest)), Some(schema)) = (bound, value.as_object_mut()) {
        schema.insert("format".to_owned(), Value::from(format));
        schema.entry("maximum").or_insert_with(|| Value::from(largest));
    }
    match value {
        Value::Array(all) => all.iter_mut().for_each(bound_integers),
        Value::Object(all) => all.values_mut().for_each(bound_integers),
        _ => {}
    }
}

/// Makes one object of a flattened one and its own fields where the flattened one, alone, would refuse those.
fn merge(schemas: &mut Value) {
    let all = schemas.clone();
    for schema in schemas.as_object_mut().into_iter().flat_map(|schemas| schemas.values_mut()) {
        let Some(parts) = schema["allOf"].as_array() else { continue };
        let part = |part: &Value| match part["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            Some(name) => all[name].clone(),
            None => part.clone(),
        };
        let parts: Vec<Value> = parts.iter().map(part).collect();
        if parts.iter().all(|part| part["additionalProperties"] != false) {
            continue;
        }
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for part in parts {
            properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
            required.extend(part["required"].as_array().cloned().unwrap_or_default());
        }
        *schema = json!({"type": "object", "description": schema["description"], "required": required, "properties": properties});
    }
}

/// Bounds of lists that are variants of untagged enums, where `derive` has no place for them.
const BOUNDS: [(&str, &[(&str, u64)]); 4] = [
    ("Stop/oneOf/1", &[("maxItems", MAX_STOP_STRINGS as u64)]),
    ("CompletionPrompt/oneOf/1", &[("minItems", 1), ("maxItems", 1)]),
    ("CompletionPrompt/oneOf/2", &[("minItems", 1)]),
    ("ResponseInput/oneOf/1", &[("minItems", 1)]),
];

/// Adds the errors that the layers around a handler answer with, where it does not describe them itself.
fn complete(path: &str, method: &str, operation: &mut Value) {
    let uses = |scheme: &str| operation["security"].as_array().into_iter().flatten().any(|one| one.get(scheme).is_some());
    let (key, session) = (uses(API_KEY), uses(SESSION));
    let (theirs, changes) = (path.starts_with(openai::PREFIX), method != "get");
    let mut errors = vec![("500", "A defect of the server; the request id finds it in the log")];
    if key {
        errors.push(("401", "No key, or an unknown or revoked one"));
    }
    if session {
        errors.push(("401", "Not signed in"));
    }
    if key || session {
        errors.push(("429", "Over a limit; `Retry-After` says when to try again"));
    }
    if !operation["requestBody"].is_null() {
        errors.push(("400", "The body is not JSON"));
        errors.push(("408", "The body took too long to arrive"));
        errors.push(("413", "The body is too large"));
        if !theirs {
            errors.push(("422", "A field is invalid; `param` names it"));
        }
    }
    if path.contains('{') {
        errors.push(("400", "The path cannot be read"));
    }
    if key || changes {
        errors.push(("503", "The server is starting or stopping"));
    }
    let envelope = if theirs { "OpenAiErrorEnvelope" } else { "ErrorEnvelope" };
    for (status, description) in errors {
        if operation["responses"].get(status).is_none() {
            let schema = json!({"$ref": format!("#/components/schemas/{envelope}")});
            operation["responses"][status] = json!({"description": description, "content": {"application/json": {"schema": schema}}});
        }
    }
    if let Some(responses) = operation["responses"].as_object_mut() {
        let streams = responses.values_mut().filter_map(|response| response["content"].get_mut(EVENT_STREAM));
        streams.for_each(|stream| describe_events(path, stream));
        responses.sort_keys();
    }
    if changes && path.starts_with("/api/") {
        let header = json!({
            "name": CSRF_HEADER, "in": "header", "required": true, "schema": {"type": "string"},
            "description": "Any value: shows that the Playground's own page makes the call"
        });
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(header),
            None => operation["parameters"] = json!([header]),
        }
    }
}
