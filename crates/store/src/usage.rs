//! What was used, summed by day, key, model and kind. Knows no price and no limit.

use crate::{AccountId, KeyId, Result, Store};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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

/// Records of the same account, key, model and kind as one, with their number: the row is written once however many requests it counts.
fn summed(records: &[UsageRecord]) -> impl Iterator<Item = (UsageRecord, i64)> {
    let mut sums: BTreeMap<_, (UsageRecord, i64)> = BTreeMap::new();
    for record in records {
        match sums.entry((record.account, record.key, record.model.as_str(), record.kind.as_str())) {
            Entry::Vacant(free) => {
                free.insert((record.clone(), 1));
            }
            Entry::Occupied(mut taken) => {
                let (sum, requests) = taken.get_mut();
                *requests += 1;
                sum.input_tokens = sum.input_tokens.saturating_add(record.input_tokens);
                sum.output_tokens = sum.output_tokens.saturating_add(record.output_tokens);
                sum.trained_tokens = sum.trained_tokens.saturating_add(record.trained_tokens);
                sum.duration += record.duration;
            }
        }
    }
    sums.into_values()
}

impl Store {
    /// Adds requests' use to the sums of today, all or none.
    pub async fn record_usage(&self, records: &[UsageRecord]) -> Result<()> {
        let mut w = self.write().await?;
        for (record, requests) in summed(records) {
            let upsert = "INSERT INTO usage (account, day, api_key, model, kind, requests, input_tokens, output_tokens, trained_tokens, duration)
                          VALUES (?, strftime('%Y-%m-%d', ?, 'unixepoch'), ?, ?, ?, ?, ?, ?, ?, ?)
                          ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, input_tokens = input_tokens + excluded.input_tokens,
                            output_tokens = output_tokens + excluded.output_tokens, trained_tokens = trained_tokens + excluded.trained_tokens,
                            duration = duration + excluded.duration";
            let upsert = sqlx::query(upsert).bind(record.account).bind(w.now).bind(record.key.map_or(NO_KEY, |key| key.0));
            let upsert = upsert.bind(&record.model).bind(&record.kind).bind(requests).bind(record.input_tokens).bind(record.output_tokens);
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
