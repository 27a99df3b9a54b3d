//! Every message of the contract: its golden example is read and written back to the same JSON. Clients in other languages read the same files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tiger_wire::*;

type Check = fn(&Value) -> Result<Value, String>;

fn round_trip<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, String> {
    let parsed: T = serde_json::from_str(&value.to_string()).map_err(|error| error.to_string())?;
    serde_json::to_value(&parsed).map_err(|error| error.to_string())
}

/// (file, reader, is a request)
fn table() -> Vec<(&'static str, Check, bool)> {
    vec![
        ("generate_request", round_trip::<GenerateRequest>, true),
        ("generate_request_minimal", round_trip::<GenerateRequest>, true),
        ("generate_response", round_trip::<GenerateResponse>, false),
        ("message", round_trip::<Message>, true),
        ("model_info", round_trip::<ModelInfo>, false),
        ("model_info_base", round_trip::<ModelInfo>, false),
        ("create_model_request", round_trip::<CreateModelRequest>, true),
        ("patch_model_request", round_trip::<PatchModelRequest>, true),
        ("delete_model_response", round_trip::<DeleteModelResponse>, false),
        ("train_request", round_trip::<TrainRequest>, true),
        ("train_request_batch", round_trip::<TrainRequest>, true),
        ("train_response", round_trip::<TrainResponse>, false),
        ("train_response_zero_advantage", round_trip::<TrainResponse>, false),
        ("evaluate_request", round_trip::<EvaluateRequest>, true),
        ("evaluate_response", round_trip::<EvaluateResponse>, false),
        ("chunk_stop_evaluate", round_trip::<Chunk>, false),
        ("revision_info", round_trip::<RevisionInfo>, false),
        ("revision_info_rollback", round_trip::<RevisionInfo>, false),
        ("rollback_request", round_trip::<RollbackRequest>, true),
        ("chunk_info", round_trip::<Chunk>, false),
        ("chunk_delta", round_trip::<Chunk>, false),
        ("chunk_reasoning", round_trip::<Chunk>, false),
        ("chunk_progress", round_trip::<Chunk>, false),
        ("chunk_progress_within_step", round_trip::<Chunk>, false),
        ("chunk_stop_generate", round_trip::<Chunk>, false),
        ("chunk_stop_train", round_trip::<Chunk>, false),
        ("chunk_stop_create", round_trip::<Chunk>, false),
        ("chunk_error", round_trip::<Chunk>, false),
        ("error", round_trip::<ErrorEnvelope>, false),
        ("sign_in_request", round_trip::<SignInRequest>, true),
        ("create_owner_request", round_trip::<CreateOwnerRequest>, true),
        ("accept_invitation_request", round_trip::<AcceptInvitationRequest>, true),
        ("session_info", round_trip::<SessionInfo>, false),
        ("sign_out_response", round_trip::<SignOutResponse>, false),
        ("invitation_response", round_trip::<InvitationResponse>, false),
        ("api_key_info", round_trip::<ApiKeyInfo>, false),
        ("create_key_request", round_trip::<CreateKeyRequest>, true),
        ("create_key_response", round_trip::<CreateKeyResponse>, false),
        ("revoke_key_response", round_trip::<RevokeKeyResponse>, false),
        ("change_password_request", round_trip::<ChangePasswordRequest>, true),
        ("account_info", round_trip::<AccountInfo>, false),
        ("invitation_info", round_trip::<InvitationInfo>, false),
        ("deleted_response", round_trip::<DeletedResponse>, false),
        ("chat_document", round_trip::<ChatDocument>, true),
        ("update_chat_request", round_trip::<UpdateChatRequest>, true),
        ("chat", round_trip::<Chat>, false),
        ("chat_list", round_trip::<ChatList>, false),
        ("deleted_chats", round_trip::<DeletedChats>, false),
        ("usage_sum", round_trip::<UsageSum>, false),
        ("usage_sum_page", round_trip::<UsageSum>, false),
        ("status_info", round_trip::<StatusInfo>, false),
        ("pull_request", round_trip::<PullRequest>, true),
        ("pull_info", round_trip::<PullInfo>, false),
        ("chunk_delta_top", round_trip::<Chunk>, false),
        // Unknown fields of OpenAI's requests are looked at by name, by the server.
        ("openai_chat_request", round_trip::<openai::ChatCompletionRequest>, false),
        ("openai_chat_completion", round_trip::<openai::ChatCompletion>, false),
        ("openai_chat_chunk", round_trip::<openai::ChatCompletionChunk>, false),
        ("openai_completion_request", round_trip::<openai::CompletionRequest>, false),
        ("openai_completion", round_trip::<openai::Completion>, false),
        ("openai_response_request", round_trip::<openai::ResponseRequest>, false),
        ("openai_model_list", round_trip::<openai::ModelList>, false),
        ("openai_model_deleted", round_trip::<openai::ModelDeleted>, false),
        ("openai_error", round_trip::<openai::OpenAiErrorEnvelope>, false),
    ]
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn golden(name: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).expect("golden file");
    serde_json::from_str(&text).expect("golden file is JSON")
}

#[test]
fn every_message_keeps_its_shape() {
    for (name, check, _) in table() {
        let value = golden(name);
        let back = check(&value).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(back, value, "{name}");
    }
}

#[test]
fn every_golden_file_is_read() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .expect("golden folder")
        .map(|entry| entry.expect("entry").path().file_stem().expect("stem").to_string_lossy().into_owned())
        .collect();
    let named: BTreeSet<String> = table().iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(files, named);
}

#[test]
fn requests_refuse_unknown_fields() {
    for (name, check, is_request) in table() {
        let mut value = golden(name);
        value.as_object_mut().expect("object").insert("no_such_field".to_owned(), json!(1));
        let outcome = check(&value);
        if is_request {
            assert!(outcome.expect_err(name).contains("no_such_field"), "{name}");
        }
    }
}

#[test]
fn optional_fields_take_null_as_absent() {
    let with_nulls = json!({"model": "m", "messages": [], "stream": null, "temperature": null, "stop": null, "n": null, "logprobs": null});
    let request: GenerateRequest = serde_json::from_value(with_nulls).expect("nulls");
    assert_eq!(request, GenerateRequest { model: "m".to_owned(), ..GenerateRequest::default() });
}

#[test]
fn a_chunk_knows_whether_it_is_last() {
    for (name, last) in
        [("chunk_info", false), ("chunk_delta", false), ("chunk_progress", false), ("chunk_stop_train", true), ("chunk_error", true)]
    {
        let chunk: Chunk = serde_json::from_value(golden(name)).expect(name);
        assert_eq!(chunk.is_last(), last, "{name}");
    }
}

#[test]
fn stop_chunks_are_told_apart() {
    for (name, kind) in [
        ("chunk_stop_generate", "generate"),
        ("chunk_stop_train", "train"),
        ("chunk_stop_evaluate", "evaluate"),
        ("chunk_stop_create", "create"),
    ] {
        let Chunk::Stop(stop) = serde_json::from_value(golden(name)).expect(name) else { panic!("{name} is no stop") };
        let found = match *stop {
            StopChunk::Generate(_) => "generate",
            StopChunk::Train(_) => "train",
            StopChunk::Evaluate(_) => "evaluate",
            StopChunk::Create(_) => "create",
        };
        assert_eq!(found, kind);
    }
}

#[test]
fn a_status_belongs_to_each_error_type() {
    let pairs =
        [("invalid_request", 400), ("authentication", 401), ("permission", 403), ("not_found", 404), ("conflict", 409), ("too_large", 413)];
    let more = [("validation", 422), ("rate_limit", 429), ("internal", 500), ("unavailable", 503)];
    for (name, status) in pairs.into_iter().chain(more) {
        let kind: ErrorType = serde_json::from_value(json!(name)).expect(name);
        assert_eq!(kind.status(), status, "{name}");
    }
}
