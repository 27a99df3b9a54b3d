//! What was used, summed by day, key, model and kind. Knows no price and no limit.

use crate::{AccountId, KeyId, Result, Store};

/// One request's use.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRecord {
    /// Who pays.
    pub account: AccountId,
    /// The key it came with; `None` for the account's own web pages.
    pub key: Option<KeyId>,
    /// Id of the model, private or base.
    pub model: String,
    /// What was done: `generate`, `train`, …
    pub kind: String,
    /// Prompt tokens.
    pub input_tokens: i64,
    /// Sampled tokens.
    pub output_tokens: i64,
    /// Tokens with a gradient.
    pub trained_tokens: i64,
    /// Seconds of work.
    pub duration: f64,
}

/// The sum of one day, key, model and kind.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct UsageSum {
    /// `YYYY-MM-DD`, UTC.
    pub day: String,
    /// The key; `None` for the account's own web pages.
    pub key: Option<KeyId>,
    /// Id of the model.
    pub model: String,
    /// What was done.
    pub kind: String,
    /// Requests.
    pub requests: i64,
    /// Prompt tokens.
    pub input_tokens: i64,
    /// Sampled tokens.
    pub output_tokens: i64,
    /// Tokens with a gradient.
    pub trained_tokens: i64,
    /// Seconds of work.
    pub duration: f64,
}

/// Stands for "no key" in the primary key, where NULL would make rows differ from themselves.
const NO_KEY: i64 = 0;

impl Store {
    /// Adds requests' use to the sums of today, all or none.
    pub async fn record_usage(&self, records: &[UsageRecord]) -> Result<()> {
        let mut w = self.write().await?;
        for record in records {
            let upsert = "INSERT INTO usage (account, day, api_key, model, kind, requests, input_tokens, output_tokens, trained_tokens, duration)
                          VALUES (?, strftime('%Y-%m-%d', ?, 'unixepoch'), ?, ?, ?, 1, ?, ?, ?, ?)
                          ON CONFLICT DO UPDATE SET requests = requests + 1, input_tokens = input_tokens + excluded.input_tokens,
                            output_tokens = output_tokens + excluded.output_tokens, trained_tokens = trained_tokens + excluded.trained_tokens,
                            duration = duration + excluded.duration";
            let upsert = sqlx::query(upsert).bind(record.account).bind(w.now).bind(record.key.map_or(NO_KEY, |key| key.0));
            let upsert = upsert.bind(&record.model).bind(&record.kind).bind(record.input_tokens).bind(record.output_tokens);
            upsert.bind(record.trained_tokens).bind(record.duration).execute(&mut *w.tx).await?;
        }
        w.commit().await
    }

    /// An account's sums since the day of `since` (Unix seconds), newest day first.
    pub async fn usage(&self, account: AccountId, since: f64) -> Result<Vec<UsageSum>> {
        let query = "SELECT day, nullif(api_key, 0) AS key, model, kind, requests, input_tokens, output_tokens, trained_tokens, duration
                     FROM usage WHERE account = ? AND day >= strftime('%Y-%m-%d', ?, 'unixepoch') ORDER BY day DESC, api_key, model, kind";
        Ok(sqlx::query_as(query).bind(account).bind(since).fetch_all(self.readers()).await?)
    }
}
