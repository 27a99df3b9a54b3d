//! `POST /v1/adapters`: a private model from the two files of a PEFT adapter, as two parts of a form, since neither is JSON of ours.

use axum::Json;
use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use bytes::Bytes;
use tiger_formats::{Adapter as Files, FormatError, peft};
use tiger_model::Adapter;
use tiger_store::{NewModel, Sampling, Weights};
use tiger_wire::limits::MAX_RANK;
use tiger_wire::{ErrorCode, ErrorEnvelope, ErrorType, ModelInfo};
use utoipa::ToSchema;

use super::models::{check_description, check_name, info_of_own};
use crate::app::App;
use crate::auth::Caller;
use crate::bases::Base;
use crate::error::{ApiError, quoted};
use crate::limits::{ADAPTER_CONFIG_BYTES, ADAPTER_TIME, DESCRIPTION_BYTES};
use crate::target::Target;

/// The parts of the form.
#[derive(Debug, Default, ToSchema)]
pub struct ImportForm {
    /// Name of the new model.
    #[schema(min_length = 1, max_length = 64, pattern = "^[^/\\x00-\\x1f\\x7f-\\x9f]+$")]
    name: String,
    /// What it is for.
    #[schema(required = false)]
    description: String,
    /// The base model that the adapter was trained on, id or name.
    parent_model: String,
    /// The file `adapter_config.json`.
    #[schema(value_type = String, format = Binary)]
    adapter_config: Bytes,
    /// The file `adapter_model.safetensors`.
    #[schema(value_type = String, format = Binary)]
    adapter_model: Bytes,
}

/// Makes a model from a LoRA adapter in PEFT's form; its revision 0 has the adapter's weights.
#[utoipa::path(
    post,
    path = "/v1/adapters",
    operation_id = "import_adapter",
    tag = "models",
    request_body(content = ImportForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "The model", body = ModelInfo),
        (status = 400, description = "The body is no form", body = ErrorEnvelope),
        (status = 404, description = "No such base", body = ErrorEnvelope),
        (status = 408, description = "The files took too long to arrive", body = ErrorEnvelope),
        (status = 409, description = "The name is taken", body = ErrorEnvelope),
        (status = 413, description = "The files are too large", body = ErrorEnvelope),
        (status = 422, description = "A part is invalid; `param` names it", body = ErrorEnvelope),
        (status = 503, description = "The base's weights are not here, or the disk is full", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn import(
    State(app): State<App>,
    caller: Caller,
    form: Result<Multipart, MultipartRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let form = form.map_err(|rejection| bad_form(&rejection.body_text()))?;
    // Whole files are in memory from here on.
    let _place = app.imports().acquire().await.map_err(ApiError::internal)?;
    let read = tokio::time::timeout(ADAPTER_TIME, read(form)).await;
    let form = read.map_err(|_| ApiError::of_status(StatusCode::REQUEST_TIMEOUT).unwrap_or_else(ApiError::draining))??;
    check_name(&form.name)?;
    check_description(&form.description)?;
    let base = match Target::find(&app, caller.account, &form.parent_model).await.map_err(|error| error.param("parent_model"))? {
        Target::Base(base) => base,
        Target::Own(own) => {
            let message =
                format!("{} is no base model; give the base that the adapter was trained on, e.g. {}", own.row.name, own.base.name);
            return Err(ApiError::invalid("parent_model", message));
        }
    };
    let architecture = base.facts().map_err(|error| error.param("parent_model"))?.architecture.clone();
    let (config, weights) = (form.adapter_config, form.adapter_model);
    let made = tokio::task::spawn_blocking(move || {
        check_ranks(&config)?;
        let files = Files::from_bytes(&config, &weights, &architecture).map_err(refused)?;
        let adapter = Adapter::from_peft(&architecture, &files).map_err(ApiError::internal)?;
        Ok::<_, ApiError>((files.rank, files.alpha, adapter.to_bytes()))
    });
    let (rank, alpha, bytes) = made.await.map_err(ApiError::internal)??;
    let blob = app.store().put_blob(Bytes::from(bytes)).await?;
    let new = new_model(&caller, (form.name, form.description), &base, (rank, alpha));
    let row = app.store().create_model(&new, Weights::Fresh(&blob), &app.bases().reserved()).await?;
    Ok((StatusCode::CREATED, Json(info_of_own(&app, &row))))
}

/// Before any factor is padded to the highest rank: one of it in a small file would take the memory of an adapter of that rank.
fn check_ranks(config: &[u8]) -> Result<(), ApiError> {
    // What is no JSON at all is refused by its reader.
    let config: serde_json::Value = serde_json::from_slice(config).unwrap_or_default();
    let own = config["rank_pattern"].as_object().into_iter().flat_map(|ranks| ranks.values());
    match own.chain([&config["r"]]).filter_map(serde_json::Value::as_f64).find(|rank| *rank > f64::from(MAX_RANK)) {
        Some(rank) => Err(ApiError::invalid("adapter_config", format!("a rank is {rank}; at most {MAX_RANK} is allowed"))),
        None => Ok(()),
    }
}

fn new_model(caller: &Caller, (name, description): (String, String), base: &Base, (rank, alpha): (usize, f32)) -> NewModel {
    NewModel {
        account: caller.account,
        name,
        description,
        base_model: base.name.clone(),
        parent: base.name.clone(),
        rank: i64::try_from(rank).unwrap_or(i64::MAX),
        alpha: f64::from(alpha),
        dropout: 0.0,
        sampling: Sampling::default(),
        learning_rate: None,
        // Nothing was drawn.
        seed: 0,
    }
}

async fn read(mut form: Multipart) -> Result<ImportForm, ApiError> {
    let mut parts = ImportForm::default();
    let mut seen: Vec<String> = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| unread(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        if seen.contains(&name) {
            return Err(ApiError::invalid(name.clone(), format!("{} is given twice", quoted(&name))));
        }
        match name.as_str() {
            "name" => parts.name = text(field, &name).await?,
            "description" => parts.description = text(field, &name).await?,
            "parent_model" => parts.parent_model = text(field, &name).await?,
            "adapter_config" => parts.adapter_config = small(field, &name, ADAPTER_CONFIG_BYTES).await?,
            "adapter_model" => parts.adapter_model = field.bytes().await.map_err(|error| unread(&error))?,
            _ => {
                let message = format!(
                    "unknown part {}; the parts are `name`, `description`, `parent_model`, `adapter_config`, `adapter_model`",
                    quoted(&name)
                );
                return Err(ApiError::invalid(name, message));
            }
        }
        seen.push(name);
    }
    for part in ["name", "parent_model", "adapter_config", "adapter_model"] {
        if !seen.iter().any(|name| name == part) {
            return Err(ApiError::invalid(part, format!("the part `{part}` is missing")));
        }
    }
    Ok(parts)
}

async fn text(field: Field<'_>, name: &str) -> Result<String, ApiError> {
    let bytes = small(field, name, DESCRIPTION_BYTES).await?;
    String::from_utf8(bytes.to_vec()).map_err(|_| ApiError::invalid(name, format!("`{name}` is not UTF-8")))
}

async fn small(field: Field<'_>, name: &str, most: usize) -> Result<Bytes, ApiError> {
    let bytes = field.bytes().await.map_err(|error| unread(&error))?;
    if bytes.len() > most {
        return Err(ApiError::invalid(name, format!("`{name}` has {} bytes; at most {most} are allowed", bytes.len())));
    }
    Ok(bytes)
}

fn bad_form(problem: &str) -> ApiError {
    let message = format!("the body is no form ({problem}); send multipart/form-data as /openapi.json describes");
    ApiError::new(ErrorType::InvalidRequest, ErrorCode::BadRequest, message)
}

fn unread(error: &MultipartError) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = "the files are too large; save the adapter in bf16 or with a lower rank";
            ApiError::new(ErrorType::TooLarge, ErrorCode::BodyTooLarge, message).param("adapter_model")
        }
        _ => bad_form(&error.body_text()),
    }
}

/// The caller's fault, at one of the two files.
fn refused(error: FormatError) -> ApiError {
    let message = error.to_string();
    let param = match error {
        FormatError::Invalid { file, .. } | FormatError::Unsupported { file, .. } if file == peft::CONFIG_FILE => "adapter_config",
        _ => "adapter_model",
    };
    ApiError::invalid(param, message)
}
