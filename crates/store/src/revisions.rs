//! A model's revisions: their list, and the way back to one of them.

use crate::{Error, ModelKey, ModelRow, Pin, Result, Store, TrainId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

/// One revision of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionRow {
    /// The number, from 0.
    pub revision: i64,
    /// The training that made it; `None` for revision 0 and for a rollback.
    pub train: Option<TrainId>,
    /// The revision whose weights a rollback restored.
    pub restored_from: Option<i64>,
    /// Blob of the adapter; `None` when the weights are no longer kept.
    pub blob_sha256: Option<String>,
    /// Size of that blob in bytes.
    pub blob_bytes: i64,
    /// Blob of the optimizer state; `None` when there was none or it is no longer kept.
    pub optimizer_sha256: Option<String>,
    /// The training's metrics as they were given.
    pub metrics: Option<serde_json::Value>,
    /// Unix seconds.
    pub created: f64,
}

impl sqlx::FromRow<'_, SqliteRow> for RevisionRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let metrics: Option<String> = row.try_get("metrics")?;
        let metrics = metrics.map(|text| serde_json::from_str(&text)).transpose();
        Ok(Self {
            revision: row.try_get("revision")?,
            train: row.try_get("train")?,
            restored_from: row.try_get("restored_from")?,
            blob_sha256: row.try_get("blob_sha256")?,
            blob_bytes: row.try_get("blob_bytes")?,
            optimizer_sha256: row.try_get("optimizer_sha256")?,
            metrics: metrics.map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
            created: row.try_get("created")?,
        })
    }
}

impl Store {
    /// A model's revisions, newest first, at most `limit` of them, those before revision `before` where it is given.
    pub async fn revisions(&self, model: ModelKey, limit: u32, before: Option<i64>) -> Result<Vec<RevisionRow>> {
        let query = sqlx::query_as("SELECT * FROM revision WHERE model = ? AND revision < ? ORDER BY revision DESC LIMIT ?");
        Ok(query.bind(model).bind(before.unwrap_or(i64::MAX)).bind(limit).fetch_all(self.readers()).await?)
    }

    /// One revision of a model.
    pub async fn revision(&self, model: ModelKey, revision: i64) -> Result<Option<RevisionRow>> {
        let query = sqlx::query_as("SELECT * FROM revision WHERE model = ? AND revision = ?").bind(model).bind(revision);
        Ok(query.fetch_optional(self.readers()).await?)
    }

    /// One revision together with a pin on its weights, so that they stay while somebody reads them.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a revision that does not exist, [`Error::WeightsGone`] when its weights are no longer kept.
    pub async fn pin_revision(&self, model: ModelKey, revision: i64) -> Result<(RevisionRow, Pin)> {
        let _found = self.pin_gate().await;
        let row = self.revision(model, revision).await?.ok_or(Error::NotFound("the revision"))?;
        let pin = self.pin_now(row.blob_sha256.as_deref().ok_or(Error::WeightsGone(revision))?);
        Ok((row, pin))
    }

    /// Makes an earlier revision's weights and optimizer state the newest revision (+ 1; nothing is lost). A training that runs
    /// meanwhile built on weights that are no longer the newest: its commit answers [`Error::RevisionMoved`].
    ///
    /// # Errors
    /// [`Error::NotFound`] for a model or revision that does not exist, [`Error::WeightsGone`] when its weights are no longer kept.
    pub async fn rollback(&self, model: ModelKey, revision: i64) -> Result<ModelRow> {
        let mut w = self.write().await?;
        let current: Option<i64> = sqlx::query_scalar("SELECT revision FROM model WHERE key = ? AND deleted_at IS NULL")
            .bind(model)
            .fetch_optional(&mut *w.tx)
            .await?;
        let new = current.ok_or(Error::NotFound("the model"))? + 1;
        let query = sqlx::query_as("SELECT * FROM revision WHERE model = ? AND revision = ?").bind(model).bind(revision);
        let old: RevisionRow = query.fetch_optional(&mut *w.tx).await?.ok_or(Error::NotFound("the revision"))?;
        let blob = old.blob_sha256.ok_or(Error::WeightsGone(revision))?;
        let insert = "INSERT INTO revision (model, revision, restored_from, blob_sha256, blob_bytes, optimizer_sha256, created)
                      VALUES (?, ?, ?, ?, ?, ?, ?)";
        let insert = sqlx::query(insert).bind(model).bind(new).bind(revision).bind(&blob).bind(old.blob_bytes);
        insert.bind(&old.optimizer_sha256).bind(w.now).execute(&mut *w.tx).await?;
        let update =
            "UPDATE model SET revision = ?, blob_sha256 = ?, blob_bytes = ?, optimizer_sha256 = ?, last_modified = ? WHERE key = ?";
        let update = sqlx::query(update).bind(new).bind(&blob).bind(old.blob_bytes).bind(&old.optimizer_sha256).bind(w.now).bind(model);
        update.execute(&mut *w.tx).await?;
        self.let_go(&mut w, model, new).await?;
        w.commit().await?;
        self.model_by_key(model).await?.ok_or(Error::NotFound("the model"))
    }

    /// Forgets the weights and optimizer states of revisions long past, so that a model's disk space is bounded; their rows stay.
    pub(crate) async fn let_go(&self, w: &mut crate::schema::Write, model: ModelKey, newest: i64) -> Result<()> {
        /// Weights of this many newest revisions stay for rollbacks: 256 of a 22 MB adapter are 6 GB.
        const KEEP_WEIGHTS: u32 = 256;
        /// Optimizer states are twice the adapter and matter only where training goes on.
        const KEEP_OPTIMIZERS: u32 = 8;
        let oldest = |keep: Option<u32>, default: u32| newest - i64::from(keep.unwrap_or(default).max(1));
        let weights = oldest(self.inner.options.keep_weights, KEEP_WEIGHTS);
        let optimizers = oldest(self.inner.options.keep_optimizers, KEEP_OPTIMIZERS);
        let forget = "UPDATE revision SET blob_sha256 = NULL, optimizer_sha256 = NULL WHERE model = ? AND revision BETWEEN 1 AND ? AND blob_sha256 IS NOT NULL";
        sqlx::query(forget).bind(model).bind(weights).execute(&mut *w.tx).await?;
        let forget = "UPDATE revision SET optimizer_sha256 = NULL WHERE model = ? AND revision <= ? AND optimizer_sha256 IS NOT NULL";
        sqlx::query(forget).bind(model).bind(optimizers).execute(&mut *w.tx).await?;
        Ok(())
    }
}
