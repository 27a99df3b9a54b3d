//! `/openai/v1`: the same models for clients made for OpenAI's API.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use tiger_wire::StopChunk;
use tiger_wire::openai::{
    ChatCompletion, ChatCompletionRequest, Completion, CompletionRequest, Model, ModelDeleted, ModelList, OpenAiErrorEnvelope,
    ResponseRequest, StreamOptions,
};

use super::{InFlight, models};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiJson};
use crate::generation::Finished;
use crate::openai::answer::{self, Head};
use crate::openai::chat;
use crate::openai::completions::{self, CompletionFrames};
use crate::openai::frames::ChatFrames;
use crate::openai::responses::{self, ResponseFrames};
use crate::router::random_id;
use crate::routes::generate::too_long;
use crate::stream::respond;

fn head(app: &App, prefix: &str, (model, revision): (String, u64)) -> Head {
    Head { id: random_id(prefix), created: app.config().clock.unix_s(), model, revision }
}

fn wants_usage(options: Option<&StreamOptions>) -> bool {
    options.and_then(|options| options.include_usage).unwrap_or(false)
}

/// The work of an answer that is not streamed, within its time.
async fn within(app: &App, work: impl Future<Output = Result<Finished, ApiError>>) -> Result<Finished, ApiError> {
    let limit = app.limits().request_time;
    tokio::time::timeout(limit, work).await.map_err(|_| too_long(limit.as_secs()))?
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/openai/v1/chat/completions",
    operation_id = "openai_chat_completions",
    tag = "openai",
    request_body = ChatCompletionRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, server-sent events ended by `[DONE]`", content(
            (ChatCompletion = "application/json"), (tiger_wire::openai::ChatCompletionChunk = "text/event-stream"),
        )),
        (status = 400, description = "A field is invalid; `param` names it", body = OpenAiErrorEnvelope),
        (status = 404, description = "No such model", body = OpenAiErrorEnvelope),
        (status = 503, description = "Starting, draining, or the model's weights are not here", body = OpenAiErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn chat_completions(
    State(app): State<App>,
    caller: Caller,
    Extension(flight): InFlight,
    ApiJson(request): ApiJson<ChatCompletionRequest>,
) -> Result<Response, ApiError> {
    let (streamed, include_usage) = (request.stream.unwrap_or(false), wants_usage(request.stream_options.as_ref()));
    let checked = chat::check(&app, caller, flight.started(), request).await?;
    let head = head(&app, "chatcmpl", checked.plan.model());
    let front = checked.plan.front().await?;
    let tools = checked.tools.clone();
    if !streamed {
        let finished = within(&app, async { checked.start(&app).await?.finish(&app, None).await }).await?;
        let answer = answer::chat(head, &front, tools.as_ref(), finished.samples, &finished.usage);
        return Ok(Json(answer).into_response());
    }
    let frames = ChatFrames::new(head, front, tools, include_usage);
    let run = checked.start(&app).await?;
    let (request_id, cut) = (flight.request_id.clone(), app.cut_signal());
    Ok(respond(frames, request_id, cut, move |sink| async move { Ok(StopChunk::Generate(run.finish(&app, Some(&sink)).await?.stop()?)) }))
}

/// Continues a text.
#[utoipa::path(
    post,
    path = "/openai/v1/completions",
    operation_id = "openai_completions",
    tag = "openai",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The text; with `stream`, server-sent events ended by `[DONE]`", content(
            (Completion = "application/json"), (Completion = "text/event-stream"),
        )),
        (status = 400, description = "A field is invalid; `param` names it", body = OpenAiErrorEnvelope),
        (status = 404, description = "No such model", body = OpenAiErrorEnvelope),
        (status = 503, description = "Starting, draining, or the model's weights are not here", body = OpenAiErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn complete(
    State(app): State<App>,
    caller: Caller,
    Extension(flight): InFlight,
    ApiJson(request): ApiJson<CompletionRequest>,
) -> Result<Response, ApiError> {
    let (streamed, include_usage) = (request.stream.unwrap_or(false), wants_usage(request.stream_options.as_ref()));
    let (plan, front, prompt) = completions::check(&app, caller, flight.started(), request).await?;
    let head = head(&app, "cmpl", plan.model());
    let run = plan.begin(&app, Arc::clone(&front), prompt, None).map_err(completions::rename)?;
    if !streamed {
        let finished = within(&app, run.finish(&app, None)).await?;
        return Ok(Json(completions::answer(&head, &front, &finished.samples, &finished.usage)).into_response());
    }
    let (request_id, cut) = (flight.request_id.clone(), app.cut_signal());
    let frames = CompletionFrames::new(head, front, include_usage);
    Ok(respond(frames, request_id, cut, move |sink| async move { Ok(StopChunk::Generate(run.finish(&app, Some(&sink)).await?.stop()?)) }))
}

/// Answers a text or a conversation, text only; nothing is stored.
#[utoipa::path(
    post,
    path = "/openai/v1/responses",
    operation_id = "openai_responses",
    tag = "openai",
    request_body = ResponseRequest,
    responses(
        (status = 200, description = "The response object; with `stream`, typed server-sent events", content(
            (tiger_wire::openai::ResponseObject = "application/json"), (tiger_wire::openai::ResponseEvent = "text/event-stream"),
        )),
        (status = 400, description = "A field is invalid; `param` names it", body = OpenAiErrorEnvelope),
        (status = 404, description = "No such model", body = OpenAiErrorEnvelope),
        (status = 503, description = "Starting, draining, or the model's weights are not here", body = OpenAiErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn respond_text(
    State(app): State<App>,
    caller: Caller,
    Extension(flight): InFlight,
    ApiJson(request): ApiJson<ResponseRequest>,
) -> Result<Response, ApiError> {
    let streamed = request.stream.unwrap_or(false);
    let checked = responses::check(&app, caller, flight.started(), request).await?;
    let (head, echo) = (head(&app, "resp", checked.chat.plan.model()), checked.echo.clone());
    if !streamed {
        let finished = within(&app, async { checked.start(&app).await?.finish(&app, None).await }).await?;
        let sample = finished.samples.first().ok_or_else(|| ApiError::internal("a request without samples"))?;
        return Ok(Json(responses::answer(&head, &echo, sample, &finished.usage)).into_response());
    }
    let run = checked.start(&app).await?;
    let (request_id, cut) = (flight.request_id.clone(), app.cut_signal());
    let frames = ResponseFrames::new(head, echo);
    Ok(respond(frames, request_id, cut, move |sink| async move { Ok(StopChunk::Generate(run.finish(&app, Some(&sink)).await?.stop()?)) }))
}

fn model(info: &tiger_wire::ModelInfo) -> Model {
    Model {
        id: info.id.clone(),
        object: "model".to_owned(),
        created: info.created.unwrap_or(0.0) as i64,
        owned_by: if info.read_only { "tigercity" } else { "you" }.to_owned(),
    }
}

/// Lists models that can answer: bases whose weights are here, and the caller's own.
#[utoipa::path(
    get,
    path = "/openai/v1/models",
    operation_id = "openai_list_models",
    tag = "openai",
    responses(
        (status = 200, description = "The models", body = ModelList),
    ),
    security(("api_key" = [])),
)]
pub async fn list_models(app: State<App>, caller: Caller) -> Result<Json<ModelList>, ApiError> {
    let Json(all) = models::list(app, caller).await?;
    let here = all.iter().filter(|info| info.status != tiger_wire::ModelStatus::NotDownloaded);
    Ok(Json(ModelList { object: "list".to_owned(), data: here.map(model).collect() }))
}

/// One model.
#[utoipa::path(
    get,
    path = "/openai/v1/models/{id}",
    operation_id = "openai_get_model",
    tag = "openai",
    params(("id" = String, Path, description = "Id or name")),
    responses(
        (status = 200, description = "The model", body = Model),
        (status = 404, description = "No such model", body = OpenAiErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn get_model(app: State<App>, caller: Caller, id: Path<String>) -> Result<Json<Model>, ApiError> {
    let Json(info) = models::get(app, caller, id).await?;
    Ok(Json(model(&info)))
}

/// Deletes one's own model.
#[utoipa::path(
    delete,
    path = "/openai/v1/models/{id}",
    operation_id = "openai_delete_model",
    tag = "openai",
    params(("id" = String, Path, description = "Id or name")),
    responses(
        (status = 200, description = "It is gone", body = ModelDeleted),
        (status = 403, description = "Base models are read-only", body = OpenAiErrorEnvelope),
        (status = 404, description = "No such model", body = OpenAiErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn delete_model(app: State<App>, caller: Caller, id: Path<String>) -> Result<Json<ModelDeleted>, ApiError> {
    let Json(gone) = models::delete(app, caller, id).await?;
    Ok(Json(ModelDeleted { id: gone.id, object: "model".to_owned(), deleted: true }))
}
