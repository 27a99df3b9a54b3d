//! Sampled responses, kept for a day so that a training can use the very tokens and log-probs that were sampled. Knows no text
//! model: tokens and log-probs are numbers to it.

use crate::{AccountId, ModelKey, Result, Store};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _};
use std::borrow::Borrow;

/// Life of a sample, in seconds: the contract's 24 hours.
pub const SAMPLE_TTL_S: f64 = 86_400.0;

/// Rows of one statement: handing a statement to the database's thread and back costs more than a row.
const ROWS_PER_INSERT: usize = 64;

/// A sampled response to be kept.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSample {
    /// Its public id.
    pub response_id: String,
    /// Who may use it.
    pub account: AccountId,
    /// The private model that made it; `None` for a base model.
    pub model: Option<ModelKey>,
    /// Name of the base model at the root.
    pub base_model: String,
    /// The private model's revision then.
    pub revision: Option<i64>,
    /// The adapter's blob then.
    pub blob_sha256: Option<String>,
    /// Hash of the prompt's token ids.
    pub prompt_sha256: String,
    /// The sampled token ids.
    pub tokens: Vec<u32>,
    /// Their log-probs, untempered and untruncated; as many as tokens.
    pub logprobs: Vec<f32>,
    /// Why sampling ended (`end_turn`, `max_tokens`, `stop_sequence`).
    pub finish: String,
    /// The text as it was answered.
    pub text: String,
}

/// A kept sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// What was kept.
    pub sample: NewSample,
    /// Unix seconds after which it is gone.
    pub expires: f64,
}

impl Store {
    /// Keeps samples for [`SAMPLE_TTL_S`], all or none.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] when a sample has not as many log-probs as tokens.
    pub async fn insert_samples<S: Borrow<NewSample>>(&self, samples: &[S]) -> Result<()> {
        if samples.iter().map(S::borrow).any(|sample| sample.tokens.len() != sample.logprobs.len()) {
            return Err(crate::Error::invalid("logprobs", "must be as many as tokens"));
        }
        let mut w = self.write().await?;
        let expires = w.now + SAMPLE_TTL_S;
        for some in samples.chunks(ROWS_PER_INSERT) {
            let mut insert = QueryBuilder::new(
                "INSERT INTO sample (response_id, account, model, base_model, revision, blob_sha256, prompt_sha256, tokens, logprobs, finish, text, expires) ",
            );
            insert.push_values(some.iter().map(S::borrow), |mut row, sample: &NewSample| {
                let tokens: Vec<u8> = sample.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
                let logprobs: Vec<u8> = sample.logprobs.iter().flat_map(|logprob| logprob.to_le_bytes()).collect();
                row.push_bind(sample.response_id.as_str()).push_bind(sample.account).push_bind(sample.model);
                row.push_bind(sample.base_model.as_str()).push_bind(sample.revision).push_bind(sample.blob_sha256.as_deref());
                row.push_bind(sample.prompt_sha256.as_str()).push_bind(tokens).push_bind(logprobs);
                row.push_bind(sample.finish.as_str()).push_bind(sample.text.as_str()).push_bind(expires);
            });
            insert.build().execute(&mut *w.tx).await?;
        }
        w.commit().await
    }

    /// A sample of an account, unless it is unknown or expired.
    pub async fn sample(&self, account: AccountId, response_id: &str) -> Result<Option<SampleRow>> {
        let query = "SELECT * FROM sample WHERE response_id = ? AND account = ? AND expires > unixepoch('subsec') + ?";
        let query = sqlx::query_as(query).bind(response_id).bind(account).bind(self.inner.options.clock_offset_s);
        Ok(query.fetch_optional(self.readers()).await?)
    }

    /// Removes expired samples and returns how many they were.
    pub async fn purge_samples(&self) -> Result<u64> {
        let mut w = self.write().await?;
        let gone = sqlx::query("DELETE FROM sample WHERE expires <= ?").bind(w.now).execute(&mut *w.tx).await?;
        w.commit().await?;
        Ok(gone.rows_affected())
    }
}

impl sqlx::FromRow<'_, SqliteRow> for SampleRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let words = |column: &str| -> sqlx::Result<Vec<[u8; 4]>> {
            let bytes: &[u8] = row.try_get(column)?;
            Ok(bytes.as_chunks::<4>().0.to_vec())
        };
        let sample = NewSample {
            response_id: row.try_get("response_id")?,
            account: row.try_get("account")?,
            model: row.try_get("model")?,
            base_model: row.try_get("base_model")?,
            revision: row.try_get("revision")?,
            blob_sha256: row.try_get("blob_sha256")?,
            prompt_sha256: row.try_get("prompt_sha256")?,
            tokens: words("tokens")?.into_iter().map(u32::from_le_bytes).collect(),
            logprobs: words("logprobs")?.into_iter().map(f32::from_le_bytes).collect(),
            finish: row.try_get("finish")?,
            text: row.try_get("text")?,
        };
        Ok(Self { sample, expires: row.try_get("expires")? })
    }
}
