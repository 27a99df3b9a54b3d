//! Private models: their rows, names and defaults. Knows nothing of base models but the names that the caller reserves, and nothing
//! of what the weights mean.

use crate::schema::Write;
use crate::{AccountId, Error, Pin, Result, Store, StoredBlob};

/// Internal key of a model's row. A name made again after a deletion gets a new one, so nothing of the old model can reach the new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct ModelKey(pub i64);

/// Sampling defaults of a model; `None` leaves the choice to the base model.
#[derive(Clone, Copy, Debug, Default, PartialEq, sqlx::FromRow)]
pub struct Sampling {
    /// 0..=2.
    pub temperature: Option<f64>,
    /// (0, 1].
    pub top_p: Option<f64>,
    /// Tokens; 0 is off.
    pub top_k: Option<i64>,
    /// Tokens of one answer at most.
    pub max_tokens: Option<i64>,
}

/// One live model.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct ModelRow {
    /// Internal key.
    pub key: ModelKey,
    /// The public id: the name as a slug, unique within the account.
    pub id: String,
    /// Whose model it is.
    pub account: AccountId,
    /// The name as given.
    pub name: String,
    /// The description as given.
    pub description: String,
    /// Name of the read-only base model at the root.
    pub base_model: String,
    /// Name of the model it was made from, base or private, as it was called then.
    pub parent: String,
    /// Rank of the adapter.
    pub rank: i64,
    /// Scale numerator of the adapter.
    pub alpha: f64,
    /// Dropout probability in training, 0 <= d < 1.
    pub dropout: f64,
    /// Sampling defaults.
    #[sqlx(flatten)]
    pub sampling: Sampling,
    /// Learning rate of trainings that give none.
    pub learning_rate: Option<f64>,
    /// Seed that the adapter was made from (the bits of a `u64`).
    pub seed: i64,
    /// 0 at creation, + 1 by every training and rollback.
    pub revision: i64,
    /// Blob of the adapter at `revision`.
    pub blob_sha256: String,
    /// Size of that blob in bytes.
    pub blob_bytes: i64,
    /// Blob of the optimizer state at `revision`; `None` before the first training.
    pub optimizer_sha256: Option<String>,
    /// Blob of the adapter at revision 0: what the KL term of the training objective refers to.
    pub reference_sha256: String,
    /// Unix seconds.
    pub created: f64,
    /// Unix seconds of the latest training or rollback.
    pub last_modified: Option<f64>,
    /// Whether the account chose it as the model that is selected at start-up.
    pub default_model: bool,
    /// Whether a training of it waits or runs.
    pub training: bool,
}

/// A model to be made.
#[derive(Clone, Debug)]
pub struct NewModel {
    /// Whose model it will be.
    pub account: AccountId,
    /// 1..=64 characters, no control characters, no `/`; unique within the account.
    pub name: String,
    /// May be empty.
    pub description: String,
    /// Name of the base model at the root.
    pub base_model: String,
    /// Name of the parent.
    pub parent: String,
    /// Rank of the adapter.
    pub rank: i64,
    /// Scale numerator of the adapter.
    pub alpha: f64,
    /// Dropout probability in training.
    pub dropout: f64,
    /// Sampling defaults.
    pub sampling: Sampling,
    /// Default learning rate.
    pub learning_rate: Option<f64>,
    /// Seed of the adapter.
    pub seed: i64,
}

/// Where a new model's weights come from.
#[derive(Debug)]
pub enum Weights<'a> {
    /// A fresh adapter, stored by [`Store::put_blob`].
    Fresh(&'a StoredBlob),
    /// Those of another model of the account as it is now, optimizer state included; the copy is independent from then on.
    CopyOf(ModelKey),
}

/// Changes of a model; `None` leaves a field as it is, `Some(None)` clears it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelPatch {
    /// New description.
    pub description: Option<String>,
    /// New default temperature.
    pub temperature: Option<Option<f64>>,
    /// New default top_p.
    pub top_p: Option<Option<f64>>,
    /// New default top_k.
    pub top_k: Option<Option<i64>>,
    /// New default bound of an answer's tokens.
    pub max_tokens: Option<Option<i64>>,
    /// New default learning rate.
    pub learning_rate: Option<Option<f64>>,
    /// Choose this model at start-up (which takes the choice from any other of the account), or no longer.
    pub default_model: Option<bool>,
}

/// Longest name, in characters: the contract's.
const MAX_NAME_CHARS: usize = 64;

const MODEL: &str = "SELECT m.*, EXISTS (SELECT 1 FROM train t WHERE t.model = m.key AND t.state IN ('queued', 'running')) AS training
                     FROM model m WHERE m.deleted_at IS NULL";

/// The query of one live model by its key, for use inside a write.
pub(crate) fn by_key() -> String {
    format!("{MODEL} AND m.key = ?")
}

/// A name as an id: lower case, other characters than `a-z`, `0-9`, `.`, `_`, `-` turned to `-`. No number behind it yet.
pub fn slug(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c) { c } else { '-' };
    name.to_lowercase().chars().map(plain).collect()
}

impl Store {
    /// Makes a model at revision 0. `reserved` are the names and ids of base models, which no private model may have.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::Invalid`] for a bad name, [`Error::NotFound`] when the copied model is gone.
    pub async fn create_model(&self, new: &NewModel, weights: Weights<'_>, reserved: &[String]) -> Result<ModelRow> {
        check_name(&new.name)?;
        let mut w = self.write().await?;
        let taken: Vec<String> = sqlx::query_scalar("SELECT id FROM model WHERE account = ?1 AND deleted_at IS NULL UNION SELECT name FROM model WHERE account = ?1 AND deleted_at IS NULL")
            .bind(new.account)
            .fetch_all(&mut *w.tx)
            .await?;
        let lower = new.name.to_lowercase();
        if taken.contains(&new.name) || reserved.iter().any(|name| name.to_lowercase() == lower) {
            return Err(Error::NameTaken(new.name.clone()));
        }
        let id = free_id(&new.name, &taken, reserved);
        let (blob, bytes, optimizer): (String, i64, Option<String>) = match weights {
            Weights::Fresh(blob) => (blob.sha256.clone(), i64::try_from(blob.bytes).unwrap_or(i64::MAX), None),
            Weights::CopyOf(parent) => {
                let query =
                    "SELECT blob_sha256, blob_bytes, optimizer_sha256 FROM model WHERE key = ? AND account = ? AND deleted_at IS NULL";
                let query = sqlx::query_as(query).bind(parent).bind(new.account);
                query.fetch_optional(&mut *w.tx).await?.ok_or(Error::NotFound("the parent model"))?
            }
        };
        let key = insert_model(&mut w, new, &id, (&blob, bytes, optimizer.as_deref())).await?;
        w.commit().await?;
        self.model_by_key(key).await?.ok_or(Error::NotFound("the model"))
    }

    /// A live model of an account by its id, else by its name. Names are never another model's id, so this is never ambiguous.
    pub async fn model(&self, account: AccountId, id_or_name: &str) -> Result<Option<ModelRow>> {
        let sql = format!("{MODEL} AND m.account = ?1 AND (m.id = ?2 OR m.name = ?2) ORDER BY m.id = ?2 DESC LIMIT 1");
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(account).bind(id_or_name);
        Ok(query.fetch_optional(self.readers()).await?)
    }

    /// A live model by its internal key.
    pub async fn model_by_key(&self, key: ModelKey) -> Result<Option<ModelRow>> {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(by_key())).bind(key);
        Ok(query.fetch_optional(self.readers()).await?)
    }

    /// A live model together with a pin on its weights as they are now: what a request reads once, at its admission, and is served
    /// from to its end, whatever is trained, deleted or swept meanwhile.
    pub async fn pin_model(&self, account: AccountId, id_or_name: &str) -> Result<Option<(ModelRow, Pin)>> {
        let _found = self.pin_gate().await;
        let Some(model) = self.model(account, id_or_name).await? else { return Ok(None) };
        let pin = self.pin_now(&model.blob_sha256);
        Ok(Some((model, pin)))
    }

    /// An account's live models, newest first.
    pub async fn models(&self, account: AccountId) -> Result<Vec<ModelRow>> {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{MODEL} AND m.account = ? ORDER BY m.key DESC"))).bind(account);
        Ok(query.fetch_all(self.readers()).await?)
    }

    /// Changes a model's description and defaults; its weights and revision stay.
    pub async fn patch_model(&self, key: ModelKey, patch: &ModelPatch) -> Result<ModelRow> {
        let mut w = self.write().await?;
        let account: Option<AccountId> = sqlx::query_scalar("SELECT account FROM model WHERE key = ? AND deleted_at IS NULL")
            .bind(key)
            .fetch_optional(&mut *w.tx)
            .await?;
        let account = account.ok_or(Error::NotFound("the model"))?;
        if patch.default_model == Some(true) {
            sqlx::query("UPDATE model SET default_model = 0 WHERE account = ?").bind(account).execute(&mut *w.tx).await?;
        }
        // Each nullable field comes as two values: whether to set it, and to what.
        let update = "UPDATE model SET description = coalesce(?2, description), default_model = coalesce(?3, default_model),
                        temperature = iif(?4, ?5, temperature), top_p = iif(?6, ?7, top_p), top_k = iif(?8, ?9, top_k),
                        max_tokens = iif(?10, ?11, max_tokens), learning_rate = iif(?12, ?13, learning_rate)
                      WHERE key = ?1";
        let update = sqlx::query(update).bind(key).bind(&patch.description).bind(patch.default_model);
        let update = update.bind(patch.temperature.is_some()).bind(patch.temperature.flatten());
        let update = update.bind(patch.top_p.is_some()).bind(patch.top_p.flatten());
        let update = update.bind(patch.top_k.is_some()).bind(patch.top_k.flatten());
        let update = update.bind(patch.max_tokens.is_some()).bind(patch.max_tokens.flatten());
        let update = update.bind(patch.learning_rate.is_some()).bind(patch.learning_rate.flatten());
        update.execute(&mut *w.tx).await?;
        w.commit().await?;
        self.model_by_key(key).await?.ok_or(Error::NotFound("the model"))
    }

    /// Deletes a model and cancels its trainings, in one transaction. Requests in flight keep their pinned weights; copies live on.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is gone already.
    pub async fn delete_model(&self, key: ModelKey) -> Result<()> {
        let mut w = self.write().await?;
        let deleted = sqlx::query("UPDATE model SET deleted_at = ?, default_model = 0 WHERE key = ? AND deleted_at IS NULL");
        if deleted.bind(w.now).bind(key).execute(&mut *w.tx).await?.rows_affected() != 1 {
            return Err(Error::NotFound("the model"));
        }
        let cancel = "UPDATE train SET state = 'cancelled', request = NULL, error = 'the model was deleted', ended = ?
                      WHERE model = ? AND state IN ('queued', 'running')";
        sqlx::query(cancel).bind(w.now).bind(key).execute(&mut *w.tx).await?;
        w.commit().await?;
        self.inner.queue.notify_waiters();
        Ok(())
    }
}

async fn insert_model(w: &mut Write, new: &NewModel, id: &str, (blob, bytes, optimizer): (&str, i64, Option<&str>)) -> Result<ModelKey> {
    let insert = "INSERT INTO model (id, account, name, description, base_model, parent, rank, alpha, dropout, temperature, top_p, top_k,
                    max_tokens, learning_rate, seed, revision, blob_sha256, blob_bytes, optimizer_sha256, reference_sha256, created)
                  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?16, ?17, ?18, ?16, ?19)";
    let insert =
        sqlx::query(insert).bind(id).bind(new.account).bind(&new.name).bind(&new.description).bind(&new.base_model).bind(&new.parent);
    let insert = insert.bind(new.rank).bind(new.alpha).bind(new.dropout).bind(new.sampling.temperature).bind(new.sampling.top_p);
    let insert = insert.bind(new.sampling.top_k).bind(new.sampling.max_tokens).bind(new.learning_rate).bind(new.seed);
    let insert = insert.bind(blob).bind(bytes).bind(optimizer).bind(w.now);
    let key = ModelKey(insert.execute(&mut *w.tx).await?.last_insert_rowid());
    let first = "INSERT INTO revision (model, revision, blob_sha256, blob_bytes, optimizer_sha256, created) VALUES (?, 0, ?, ?, ?, ?)";
    sqlx::query(first).bind(key).bind(blob).bind(bytes).bind(optimizer).bind(w.now).execute(&mut *w.tx).await?;
    Ok(key)
}

fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(|c| c.is_control() || c == '/');
    if bad {
        Err(Error::invalid("name", format!("must have 1 to {MAX_NAME_CHARS} characters, no control characters and no `/`")))
    } else {
        Ok(())
    }
}

/// The slug of a name, with the first number behind it that makes it free: no other model's id or name, no base model's name or id,
/// and not a path segment that means another place.
fn free_id(name: &str, taken: &[String], reserved: &[String]) -> String {
    let slug = slug(name);
    let free =
        |id: &String| !taken.contains(id) && !reserved.iter().any(|name| name == id || crate::slug(name) == *id) && id != "." && id != "..";
    if free(&slug) {
        return slug;
    }
    let mut numbered = (2u64..).map(|n| format!("{slug}-{n}"));
    // There are more numbers than models.
    numbered.find(free).unwrap_or(slug)
}
