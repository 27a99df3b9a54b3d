//! `/v1/models` and `/v1/models/{id}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use tiger_engine::train::default_learning_rate;
use tiger_formats::Architecture;
use tiger_model::Adapter;
use tiger_store::{ModelPatch, ModelRow, NewModel, Sampling, StoredBlob, Weights};
use tiger_wire::limits::{MAX_NAME_CHARS, MAX_RANK};
use tiger_wire::{
    CreateModelRequest, CreateStop, CreateUsage, DeleteModelResponse, ErrorEnvelope, ModelInfo, ModelStatus, PatchModelRequest, StopChunk,
    StopReason,
};

use super::InFlight;
use crate::app::App;
use crate::auth::Caller;
use crate::bases::Base;
use crate::error::{ApiError, ApiJson};
use crate::generation::{check_defaults, check_range, positive, random_seed};
use crate::limits::{DESCRIPTION_BYTES, LEARNING_RATE};
use crate::stream::{ChunkSender, Framing, respond};
use crate::target::{Own, Target};

/// LoRA rank of models whose maker gives none.
const DEFAULT_RANK: u32 = 16;
/// Largest alpha that is not surely a mistake.
const MAX_ALPHA: f64 = 1e6;

/// What the list needs beside a model: read once for all of them.
struct View {
    loading: Vec<String>,
    default_base: Option<String>,
}

impl View {
    /// `own_default`: the account chose one of its own models.
    fn new(app: &App, own_default: bool) -> View {
        let loading = app.engine().status().loading.iter().map(|base| base.0.to_string()).collect();
        let default_base = if own_default { None } else { app.bases().default_id() };
        View { loading, default_base }
    }

    fn base_status(&self, base: &Base) -> ModelStatus {
        match base.dir() {
            None => ModelStatus::NotDownloaded,
            Some(_) if self.loading.contains(&base.id) => ModelStatus::Loading,
            Some(_) => ModelStatus::Ready,
        }
    }

    fn base(&self, base: &Base) -> ModelInfo {
        let facts = base.facts().ok();
        let (temperature, top_p, top_k) = base.sampling();
        ModelInfo {
            name: base.name.clone(),
            id: base.id.clone(),
            description: base.description.clone(),
            read_only: true,
            parent_model: None,
            revision: None,
            last_modified: None,
            default_model: Some(self.default_base.as_deref() == Some(base.id.as_str())),
            temperature,
            top_p,
            top_k,
            max_tokens: None,
            context_length: facts.as_ref().map(|facts| facts.architecture.context_length as u64),
            base_model: base.name.clone(),
            rank: None,
            alpha: None,
            dropout: None,
            learning_rate: None,
            status: self.base_status(base),
            parameters: facts.as_ref().map(|facts| facts.architecture.parameters()),
            size_bytes: facts.as_ref().map(|facts| facts.size_bytes),
            created: None,
        }
    }

    fn own(&self, row: &ModelRow, base: Option<&Base>) -> ModelInfo {
        let facts = base.and_then(|base| base.facts().ok());
        let (temperature, top_p, top_k) = base.map_or((1.0, 1.0, None), Base::sampling);
        let status = match base {
            None => ModelStatus::NotDownloaded,
            Some(_) if row.training => ModelStatus::Training,
            Some(base) => self.base_status(base),
        };
        let hidden = facts.as_ref().map(|facts| facts.architecture.hidden);
        ModelInfo {
            name: row.name.clone(),
            id: row.id.clone(),
            description: row.description.clone(),
            read_only: false,
            parent_model: Some(row.parent.clone()),
            revision: u64::try_from(row.revision).ok(),
            last_modified: row.last_modified,
            default_model: Some(row.default_model),
            temperature: row.sampling.temperature.unwrap_or(temperature),
            top_p: row.sampling.top_p.unwrap_or(top_p),
            top_k: row.sampling.top_k.and_then(|top_k| u32::try_from(top_k).ok()).or(top_k),
            max_tokens: row.sampling.max_tokens.and_then(|max| u32::try_from(max).ok()),
            context_length: facts.as_ref().map(|facts| facts.architecture.context_length as u64),
            base_model: row.base_model.clone(),
            rank: u32::try_from(row.rank).ok(),
            alpha: Some(row.alpha),
            dropout: Some(row.dropout),
            learning_rate: row.learning_rate.or(hidden.map(default_learning_rate)),
            status,
            parameters: facts.as_ref().map(|facts| facts.architecture.parameters()),
            size_bytes: u64::try_from(row.blob_bytes).ok(),
            created: Some(row.created),
        }
    }
}

/// One's own model as the list shows it.
pub fn info_of_own(app: &App, row: &ModelRow) -> ModelInfo {
    let base = app.bases().get(&row.base_model);
    View::new(app, row.default_model).own(row, base.as_deref())
}

/// Lists base models, then one's own, newest first.
#[utoipa::path(
    get,
    path = "/v1/models",
    operation_id = "list_models",
    tag = "models",
    responses(
        (status = 200, description = "The models", body = Vec<ModelInfo>),
    ),
    security(("api_key" = [])),
)]
pub async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<ModelInfo>>, ApiError> {
    let rows = app.store().models(caller.account).await?;
    let view = View::new(&app, rows.iter().any(|row| row.default_model));
    let bases = app.bases().all();
    let mut list: Vec<ModelInfo> = bases.iter().map(|base| view.base(base)).collect();
    list.extend(rows.iter().map(|row| {
        let base = bases.iter().find(|base| base.name == row.base_model);
        view.own(row, base.map(Arc::as_ref))
    }));
    Ok(Json(list))
}

/// One model, by id or name.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    operation_id = "get_model",
    tag = "models",
    params(("id" = String, Path, description = "Id, or URL-encoded name")),
    responses(
        (status = 200, description = "The model", body = ModelInfo),
        (status = 404, description = "No such model", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<ModelInfo>, ApiError> {
    let own_default = app.store().models(caller.account).await?.iter().any(|row| row.default_model);
    if let Some(base) = app.bases().get(&id) {
        return Ok(Json(View::new(&app, own_default).base(&base)));
    }
    let row = app.store().model(caller.account, &id).await?.ok_or_else(|| ApiError::model_not_found(&id))?;
    Ok(Json(info_of_own(&app, &row)))
}

/// Makes a model from a base, or a copy of one's own.
#[utoipa::path(
    post,
    path = "/v1/models",
    operation_id = "create_model",
    tag = "models",
    request_body = CreateModelRequest,
    responses(
        (status = 201, description = "The model", body = ModelInfo),
        (status = 200, description = "With `stream`: chunks, the last one with the fields of the model", content(
            (tiger_wire::Chunk = "application/x-ndjson"), (tiger_wire::Chunk = "text/event-stream"),
        )),
        (status = 404, description = "No such parent", body = ErrorEnvelope),
        (status = 409, description = "The name is taken", body = ErrorEnvelope),
        (status = 422, description = "A field is invalid; `param` names it", body = ErrorEnvelope),
        (status = 503, description = "The parent's weights are not here, or the disk is full", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Extension(flight): InFlight,
    headers: HeaderMap,
    ApiJson(request): ApiJson<CreateModelRequest>,
) -> Result<Response, ApiError> {
    check_create(&request)?;
    let parent = Target::find(&app, caller.account, &request.parent_model).await.map_err(|error| error.param("parent_model"))?;
    let plan = Creation::plan(&request, &parent)?;
    if !request.stream {
        let row = plan.make(&app, caller, request, parent, None).await?;
        return Ok((StatusCode::CREATED, Json(info_of_own(&app, &row))).into_response());
    }
    let (started, cut) = (flight.started(), app.cut_signal());
    Ok(respond(Framing::of(&headers), flight.request_id.clone(), cut, move |sink| async move {
        let row = plan.make(&app, caller, request, parent, Some(&sink)).await?;
        let usage = CreateUsage { duration: started.elapsed().as_secs_f64() };
        Ok(StopChunk::Create(CreateStop { stop_reason: StopReason::EndTurn, usage, model: info_of_own(&app, &row) }))
    }))
}

fn check_create(request: &CreateModelRequest) -> Result<(), ApiError> {
    check_name(&request.name)?;
    check_description(&request.description)?;
    if let Some(rank) = request.rank.filter(|rank| *rank == 0 || *rank > MAX_RANK) {
        return Err(ApiError::invalid("rank", format!("`rank` is {rank}; it must be between 1 and {MAX_RANK}")));
    }
    check_range("alpha", request.alpha, (0.0, MAX_ALPHA), true)?;
    if let Some(dropout) = request.dropout.filter(|dropout| !(0.0..1.0).contains(dropout)) {
        return Err(ApiError::invalid("dropout", format!("`dropout` is {dropout}; it must be at least 0 and below 1")));
    }
    check_defaults(request.temperature, request.top_p, request.top_k, request.max_tokens)?;
    check_range("learning_rate", request.learning_rate, (0.0, LEARNING_RATE), true)
}

/// A name that a model may have.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(|c| c.is_control() || c == '/') {
        let message = format!("`name` must have 1 to {MAX_NAME_CHARS} characters, no control characters and no `/`");
        return Err(ApiError::invalid("name", message));
    }
    Ok(())
}

/// A description that a model may have.
pub fn check_description(description: &str) -> Result<(), ApiError> {
    if description.len() > DESCRIPTION_BYTES {
        let message = format!("`description` has {} bytes; at most {DESCRIPTION_BYTES} are allowed", description.len());
        return Err(ApiError::invalid("description", message));
    }
    Ok(())
}

/// The numbers of a new adapter, decided.
struct Creation {
    rank: u32,
    alpha: f64,
    seed: u64,
}

impl Creation {
    fn plan(request: &CreateModelRequest, parent: &Target) -> Result<Creation, ApiError> {
        let seed = match request.seed {
            Some(seed) => seed,
            None => random_seed()?,
        };
        let Some(row) = parent.row() else {
            let rank = request.rank.unwrap_or(DEFAULT_RANK);
            return Ok(Creation { rank, alpha: request.alpha.unwrap_or(2.0 * f64::from(rank)), seed });
        };
        let rank = u32::try_from(row.rank).unwrap_or(DEFAULT_RANK);
        if request.rank.is_some_and(|asked| asked != rank) {
            let message =
                format!("a copy of {} keeps its rank {rank}; leave `rank` out, or make a model from {}", row.name, row.base_model);
            return Err(ApiError::invalid("rank", message));
        }
        Ok(Creation { rank, alpha: request.alpha.unwrap_or(row.alpha), seed })
    }

    async fn make(
        self,
        app: &App,
        caller: Caller,
        request: CreateModelRequest,
        parent: Target,
        sink: Option<&ChunkSender>,
    ) -> Result<ModelRow, ApiError> {
        if let Some(sink) = sink {
            sink.info(format!("Making {} from {}", request.name, parent.id()), None, "making").await?;
        }
        let facts = parent.base().facts()?;
        let new = self.row(caller, &request, &parent);
        let fresh = match &parent {
            Target::Base(_) => Some(self.fresh(app, facts.architecture.clone()).await?),
            Target::Own(own) if self.alpha != own.row.alpha => Some(self.rescaled(app, own, facts.architecture.clone()).await?),
            Target::Own(_) => None,
        };
        let weights = match (&fresh, &parent) {
            (Some(blob), _) => Weights::Fresh(blob),
            (None, Target::Own(own)) => Weights::CopyOf(own.row.key),
            (None, Target::Base(_)) => return Err(ApiError::internal("a model from a base without weights")),
        };
        Ok(app.store().create_model(&new, weights, &app.bases().reserved()).await?)
    }

    fn row(&self, caller: Caller, request: &CreateModelRequest, parent: &Target) -> NewModel {
        let inherited = parent.row().map(|row| row.sampling).unwrap_or_default();
        let sampling = Sampling {
            temperature: request.temperature.or(inherited.temperature),
            top_p: request.top_p.or(inherited.top_p),
            top_k: request.top_k.map(i64::from).or(inherited.top_k),
            max_tokens: request.max_tokens.map(i64::from).or(inherited.max_tokens),
        };
        NewModel {
            account: caller.account,
            name: request.name.clone(),
            description: request.description.clone(),
            base_model: parent.base().name.clone(),
            parent: parent.row().map_or_else(|| parent.base().name.clone(), |row| row.name.clone()),
            rank: i64::from(self.rank),
            alpha: self.alpha,
            dropout: request.dropout.unwrap_or(0.0),
            sampling,
            learning_rate: request.learning_rate.or(parent.row().and_then(|row| row.learning_rate)),
            // The bits; the store has no unsigned numbers.
            seed: self.seed.cast_signed(),
        }
    }

    async fn fresh(&self, app: &App, architecture: Architecture) -> Result<StoredBlob, ApiError> {
        let (rank, alpha, seed) = (self.rank as usize, positive(self.alpha), self.seed);
        let make = move || Adapter::new(&architecture, rank, alpha, seed).to_bytes();
        let bytes = tokio::task::spawn_blocking(make).await.map_err(ApiError::internal)?;
        Ok(app.store().put_blob(Bytes::from(bytes)).await?)
    }

    /// A copy with another alpha: alpha is part of the weights' file.
    async fn rescaled(&self, app: &App, own: &Own, architecture: Architecture) -> Result<StoredBlob, ApiError> {
        let (alpha, bytes) = (positive(self.alpha), app.store().blob(&own.row.blob_sha256).await?);
        let make = move || {
            let mut file = Adapter::from_bytes(&architecture, &bytes)?.to_peft();
            file.alpha = alpha;
            Ok::<_, tiger_model::ModelError>(Adapter::from_peft(&architecture, &file)?.to_bytes())
        };
        let bytes = tokio::task::spawn_blocking(make).await.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
        Ok(app.store().put_blob(Bytes::from(bytes)).await?)
    }
}

/// Changes one's own model's description and defaults.
#[utoipa::path(
    patch,
    path = "/v1/models/{id}",
    operation_id = "update_model",
    tag = "models",
    params(("id" = String, Path, description = "Id, or URL-encoded name")),
    request_body = PatchModelRequest,
    responses(
        (status = 200, description = "The model as it is now", body = ModelInfo),
        (status = 403, description = "A base model", body = ErrorEnvelope),
        (status = 404, description = "No such model", body = ErrorEnvelope),
        (status = 422, description = "A field is invalid; `param` names it", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn patch(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    ApiJson(request): ApiJson<PatchModelRequest>,
) -> Result<Json<ModelInfo>, ApiError> {
    let own = Target::find_own(&app, caller.account, &id, "changed").await?;
    if let Some(description) = &request.description {
        check_description(description)?;
    }
    let PatchModelRequest { temperature, top_p, top_k, max_tokens, learning_rate, .. } = request;
    check_defaults(temperature.flatten(), top_p.flatten(), top_k.flatten(), max_tokens.flatten())?;
    check_range("learning_rate", learning_rate.flatten(), (0.0, LEARNING_RATE), true)?;
    let patch = ModelPatch {
        description: request.description,
        temperature,
        top_p,
        top_k: top_k.map(|top_k| top_k.map(i64::from)),
        max_tokens: max_tokens.map(|max| max.map(i64::from)),
        learning_rate,
        default_model: request.default_model,
    };
    let row = app.store().patch_model(own.row.key, &patch).await?;
    Ok(Json(info_of_own(&app, &row)))
}

/// Deletes one's own model; copies of it live on.
#[utoipa::path(
    delete,
    path = "/v1/models/{id}",
    operation_id = "delete_model",
    tag = "models",
    params(("id" = String, Path, description = "Id, or URL-encoded name")),
    responses(
        (status = 200, description = "It is gone", body = DeleteModelResponse),
        (status = 403, description = "A base model", body = ErrorEnvelope),
        (status = 404, description = "No such model", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<DeleteModelResponse>, ApiError> {
    if let Some(base) = app.bases().get(&id) {
        return Err(Target::Base(base).read_only("deleted"));
    }
    // Also where its base is gone: what cannot answer can still be deleted.
    let row = app.store().model(caller.account, &id).await?.ok_or_else(|| ApiError::model_not_found(&id))?;
    app.store().delete_model(row.key).await?;
    Ok(Json(DeleteModelResponse { id: row.id, message: "model has been deleted".to_owned() }))
}
