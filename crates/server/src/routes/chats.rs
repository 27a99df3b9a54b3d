//! `/api/chats`: the signed-in account's conversations. Another account's chat and one that does not exist are the same here.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use tiger_store::{AccountId, ChatLimits, ChatPage, ChatRow};
use tiger_wire::{Chat, ChatDocument, ChatList, ChatSummary, DeletedChats, DeletedResponse, ErrorEnvelope, UpdateChatRequest};
use utoipa::IntoParams;

use crate::app::App;
use crate::auth::Page;
use crate::chats::{checked, cursor, excerpt, fold, place};
use crate::error::{ApiError, ApiJson};
use crate::limits::{CHAT_BYTES, CHATS, CHATS_PAGE, CHATS_PAGE_DEFAULT, SEARCH_CHARS};

const LIMITS: ChatLimits = ChatLimits { chats: CHATS, bytes: CHAT_BYTES };

/// Which part of the list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Part {
    /// Only chats with this text in their title or a message, whatever its case.
    #[param(max_length = 200)]
    search: Option<String>,
    /// At most so many, 1..100. Default 50.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `next` of an earlier answer: the list goes on from there.
    before: Option<String>,
}

fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn chat(row: ChatRow, document: ChatDocument) -> Chat {
    Chat { id: row.id, version: number(row.version), created: row.created, updated: row.updated, document }
}

fn summary(row: ChatRow, excerpt: Option<String>) -> ChatSummary {
    ChatSummary {
        id: row.id,
        title: row.title,
        model: row.model,
        created: row.created,
        updated: row.updated,
        messages: number(row.messages),
        version: number(row.version),
        excerpt,
    }
}

fn page(part: &Part) -> Result<ChatPage, ApiError> {
    let limit = part.limit.unwrap_or(CHATS_PAGE_DEFAULT);
    if limit == 0 || limit > CHATS_PAGE {
        return Err(ApiError::invalid("limit", format!("`limit` is {limit}; it must be between 1 and {CHATS_PAGE}")));
    }
    let search = part.search.as_deref().filter(|search| !search.is_empty());
    if search.is_some_and(|search| search.chars().count() > SEARCH_CHARS) {
        return Err(ApiError::invalid("search", format!("`search` may have {SEARCH_CHARS} characters at most")));
    }
    let before = match &part.before {
        None => None,
        Some(before) => Some(place(before).ok_or_else(|| ApiError::invalid("before", "`before` must be `next` of an earlier answer"))?),
    };
    Ok(ChatPage { search: search.map(fold), before, limit })
}

/// Lists chats, last written first.
#[utoipa::path(
    get,
    path = "/api/chats",
    operation_id = "list_chats",
    tag = "chats",
    params(Part),
    responses(
        (status = 200, description = "The chats", body = ChatList),
        (status = 422, description = "A parameter is invalid", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn list(
    State(app): State<App>,
    Page(account): Page,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Json<ChatList>, ApiError> {
    let wrong = |problem: String| ApiError::invalid("query", format!("{problem}; the query may have `search`, `limit` and `before`"));
    let Query(part) = part.map_err(|rejection| wrong(rejection.body_text()))?;
    let page = page(&part)?;
    let rows = app.store().chats(account.id, &page).await?;
    let full = rows.len() == page.limit as usize;
    let next = rows.last().filter(|_| full).map(|last| cursor(last.updated, &last.id));
    let mut chats = Vec::with_capacity(rows.len());
    for row in rows {
        // One document in memory at a time.
        let found = match &page.search {
            Some(needle) => found(&app, account.id, &row.id, needle).await?,
            None => None,
        };
        chats.push(summary(row, found));
    }
    Ok(Json(ChatList { chats, next }))
}

async fn found(app: &App, account: AccountId, id: &str, needle: &str) -> Result<Option<String>, ApiError> {
    let Some((_, text)) = app.store().chat(account, id).await? else { return Ok(None) };
    let document: ChatDocument = serde_json::from_str(&text).map_err(ApiError::internal)?;
    Ok(excerpt(&document, needle))
}

/// Keeps a new chat.
#[utoipa::path(
    post,
    path = "/api/chats",
    operation_id = "create_chat",
    tag = "chats",
    request_body = ChatDocument,
    responses(
        (status = 201, description = "The chat, at version 1", body = Chat),
        (status = 403, description = "The page's header is missing", body = ErrorEnvelope),
        (status = 422, description = "A field is invalid; `param` names it. Or there are too many chats", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn create(
    State(app): State<App>,
    Page(account): Page,
    ApiJson(document): ApiJson<ChatDocument>,
) -> Result<(StatusCode, Json<Chat>), ApiError> {
    let row = app.store().create_chat(account.id, &checked(&document)?, LIMITS).await?;
    Ok((StatusCode::CREATED, Json(chat(row, document))))
}

/// One chat.
#[utoipa::path(
    get,
    path = "/api/chats/{id}",
    operation_id = "get_chat",
    tag = "chats",
    params(("id" = String, Path, description = "Id of the list")),
    responses(
        (status = 200, description = "The chat", body = Chat),
        (status = 404, description = "No such chat", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn get(State(app): State<App>, Page(account): Page, Path(id): Path<String>) -> Result<Json<Chat>, ApiError> {
    let (row, text) = app.store().chat(account.id, &id).await?.ok_or(tiger_store::Error::NotFound("the chat"))?;
    Ok(Json(chat(row, serde_json::from_str(&text).map_err(ApiError::internal)?)))
}

/// Writes a chat again; refused where it was written by somebody else since.
#[utoipa::path(
    put,
    path = "/api/chats/{id}",
    operation_id = "update_chat",
    tag = "chats",
    params(("id" = String, Path, description = "Id of the list")),
    request_body = UpdateChatRequest,
    responses(
        (status = 200, description = "The chat, at its next version", body = Chat),
        (status = 403, description = "The page's header is missing", body = ErrorEnvelope),
        (status = 404, description = "No such chat", body = ErrorEnvelope),
        (status = 409, description = "It is at another version", body = ErrorEnvelope),
        (status = 422, description = "A field is invalid; `param` names it", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn update(
    State(app): State<App>,
    Page(account): Page,
    Path(id): Path<String>,
    ApiJson(request): ApiJson<UpdateChatRequest>,
) -> Result<Json<Chat>, ApiError> {
    let (version, document) = request.into_parts();
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    let row = app.store().update_chat(account.id, &id, version, &checked(&document)?, LIMITS).await?;
    Ok(Json(chat(row, document)))
}

/// Deletes a chat.
#[utoipa::path(
    delete,
    path = "/api/chats/{id}",
    operation_id = "delete_chat",
    tag = "chats",
    params(("id" = String, Path, description = "Id of the list")),
    responses(
        (status = 200, description = "It is gone", body = DeletedResponse),
        (status = 403, description = "The page's header is missing", body = ErrorEnvelope),
        (status = 404, description = "No such chat", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn delete(State(app): State<App>, Page(account): Page, Path(id): Path<String>) -> Result<Json<DeletedResponse>, ApiError> {
    app.store().delete_chat(account.id, &id).await?;
    Ok(Json(DeletedResponse { id, message: "chat has been deleted".to_owned() }))
}

/// Deletes all chats of the account.
#[utoipa::path(
    delete,
    path = "/api/chats",
    operation_id = "delete_all_chats",
    tag = "chats",
    responses(
        (status = 200, description = "They are gone", body = DeletedChats),
        (status = 403, description = "The page's header is missing", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn delete_all(State(app): State<App>, Page(account): Page) -> Result<Json<DeletedChats>, ApiError> {
    Ok(Json(DeletedChats { deleted: app.store().delete_chats(account.id).await? }))
}
