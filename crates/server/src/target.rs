//! Which model a request means: a base, or one's own at its revision of this moment, with its weights pinned.
//! Another account's model and one that does not exist are the same here.

use std::sync::Arc;

use tiger_engine::AdapterId;
use tiger_store::{AccountId, ModelRow, Pin, RevisionRow};
use tiger_wire::{ErrorCode, ErrorType};

use crate::app::App;
use crate::bases::Base;
use crate::error::ApiError;
use crate::source::adapter_id;

/// One's own model. The pin keeps its weights while the request lives, whatever is trained or deleted meanwhile.
#[derive(Debug, Clone)]
pub struct Own {
    /// The model as it was at admission.
    pub row: ModelRow,
    /// Its base.
    pub base: Arc<Base>,
    _pin: Pin,
}

impl Own {
    /// The same model at one of its revisions.
    pub fn at(&self, revision: &RevisionRow, pin: Pin) -> Own {
        let row = ModelRow { revision: revision.revision, blob_sha256: pin.sha256().to_owned(), ..self.row.clone() };
        Own { row, base: Arc::clone(&self.base), _pin: pin }
    }
}

/// A model found by name or id.
#[derive(Debug)]
pub enum Target {
    /// Read-only.
    Base(Arc<Base>),
    /// The caller's.
    Own(Box<Own>),
}

impl Target {
    /// Finds a model, or answers 404.
    pub async fn find(app: &App, account: AccountId, name: &str) -> Result<Target, ApiError> {
        if let Some(base) = app.bases().get(name) {
            return Ok(Target::Base(base));
        }
        let found = app.store().pin_model(account, name).await?;
        let (row, pin) = found.ok_or_else(|| ApiError::model_not_found(name))?;
        let base = app.bases().get(&row.base_model).ok_or_else(|| {
            let message =
                format!("the base model {} of {} is no longer on this machine; ask the operator to put it back", row.base_model, row.name);
            ApiError::new(ErrorType::Unavailable, ErrorCode::NotDownloaded, message).param("model")
        })?;
        Ok(Target::Own(Box::new(Own { row, base, _pin: pin })))
    }

    /// One's own model, or 403 with `action` (e.g. `trained`) for a base, or 404.
    pub async fn find_own(app: &App, account: AccountId, name: &str, action: &str) -> Result<Box<Own>, ApiError> {
        match Target::find(app, account, name).await? {
            Target::Own(own) => Ok(own),
            base => Err(base.read_only(action)),
        }
    }

    /// 403: a base model cannot be `action`.
    pub fn read_only(&self, action: &str) -> ApiError {
        let name = &self.base().name;
        let message = format!("{name} is a base model and cannot be {action}; make your own model from it with POST /v1/models");
        ApiError::new(ErrorType::Permission, ErrorCode::ReadOnly, message).param("model")
    }

    /// The read-only model at the root.
    pub fn base(&self) -> &Arc<Base> {
        match self {
            Target::Base(base) => base,
            Target::Own(own) => &own.base,
        }
    }

    /// Id as answers give it.
    pub fn id(&self) -> &str {
        match self {
            Target::Base(base) => &base.id,
            Target::Own(own) => &own.row.id,
        }
    }

    /// The row of one's own model.
    pub fn row(&self) -> Option<&ModelRow> {
        match self {
            Target::Base(_) => None,
            Target::Own(own) => Some(&own.row),
        }
    }

    /// 0 for a base.
    pub fn revision(&self) -> u64 {
        self.row().map_or(0, |row| u64::try_from(row.revision).unwrap_or(0))
    }

    /// What the engine loads on top of the base.
    pub fn adapter(&self) -> Result<Option<AdapterId>, ApiError> {
        let Some(row) = self.row() else { return Ok(None) };
        let id = adapter_id(&row.blob_sha256);
        id.map(Some).ok_or_else(|| ApiError::internal(format!("model {} names a blob that is no sha256", row.key.0)))
    }
}
