//! `/v1/models/{id}/adapter/{file}`: one's own adapter as the two files of PEFT, to be used elsewhere.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tiger_model::Adapter;
use tiger_store::Error as StoreError;
use tiger_wire::{ErrorCode, ErrorEnvelope, ErrorType};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::Caller;
use crate::bases::known_repository;
use crate::error::{ApiError, quoted};
use crate::target::Target;

const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";

/// Which revision.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct At {
    /// Default: the newest.
    revision: Option<u64>,
}

/// For the document: bytes of a safetensors file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct AdapterFile(#[expect(dead_code, reason = "only its schema is used")] Vec<u8>);

/// One of the two files of the adapter in PEFT's form.
#[utoipa::path(
    get,
    path = "/v1/models/{id}/adapter/{file}",
    operation_id = "download_adapter",
    tag = "models",
    params(
        ("id" = String, Path, description = "Id, or URL-encoded name"),
        ("file" = String, Path, description = "`adapter_model.safetensors` or `adapter_config.json`"),
        At,
    ),
    responses(
        (status = 200, description = "The file", content(
            (Object = "application/json"), (AdapterFile = "application/octet-stream"),
        )),
        (status = 403, description = "A base model has no adapter", body = ErrorEnvelope),
        (status = 404, description = "No such model, revision or file", body = ErrorEnvelope),
        (status = 409, description = "The weights of this revision are no longer kept", body = ErrorEnvelope),
        (status = 422, description = "`revision` is invalid", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn download(
    State(app): State<App>,
    caller: Caller,
    Path((id, file)): Path<(String, String)>,
    query: Result<Query<At>, QueryRejection>,
) -> Result<Response, ApiError> {
    let own = Target::find_own(&app, caller.account, &id, "downloaded as an adapter").await?;
    let media = match file.as_str() {
        WEIGHTS => "application/octet-stream",
        CONFIG => "application/json",
        _ => {
            let message = format!("there is no file {}; an adapter has {WEIGHTS} and {CONFIG}", quoted(&file));
            return Err(ApiError::new(ErrorType::NotFound, ErrorCode::NotFound, message));
        }
    };
    let wrong = |problem: String| ApiError::invalid("revision", format!("{problem}; `revision` must be a whole number"));
    let Query(At { revision }) = query.map_err(|rejection| wrong(rejection.body_text()))?;
    let revision = revision.map_or(own.row.revision, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
    let (_, pin) = app.store().pin_revision(own.row.key, revision).await.map_err(|error| match error {
        StoreError::NotFound("the revision") => {
            ApiError::new(ErrorType::NotFound, ErrorCode::NotFound, format!("{} has no revision {revision}", own.row.name))
                .param("revision")
        }
        other => other.into(),
    })?;
    let bytes = app.store().blob(pin.sha256()).await?;
    let (architecture, base) = (own.base.facts()?.architecture.clone(), own.base.name.clone());
    let weights = file == WEIGHTS;
    let make = move || {
        let peft = Adapter::from_bytes(&architecture, &bytes).map_err(ApiError::internal)?.to_peft();
        // The name that a loader elsewhere can fetch, where there is one.
        let base = known_repository(&base).map_or(base, |(repository, _)| repository.to_owned());
        if weights { peft.weights_bytes().map_err(ApiError::internal) } else { Ok(peft.config_bytes(&base)) }
    };
    let content = tokio::task::spawn_blocking(make).await.map_err(ApiError::internal)??;
    let disposition = format!("attachment; filename=\"{file}\"");
    Ok(([(header::CONTENT_TYPE, media.to_owned()), (header::CONTENT_DISPOSITION, disposition)], content).into_response())
}
