//! The best revision of a run, and the way back to it. A server keeps the weights of a model's last few hundred revisions only, so a best one
//! that gets old is made young again. Does not know what is measured.

use tiger_client::Client;

use crate::failure::Failure;

/// Revisions after which the best one is renewed: servers keep 256.
const RENEW_AFTER: u64 = 200;

/// The revision whose weights did best so far.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Best {
    /// How well, larger is better.
    pub score: f64,
    /// A revision that has these weights.
    pub revision: u64,
}

impl Best {
    /// Whether the model, at revision `current`, has gone so far that this one would soon be out of reach.
    pub fn is_old(&self, current: u64) -> bool {
        current.saturating_sub(self.revision) >= RENEW_AFTER
    }
}

/// Makes the best revision's weights a new revision and the current ones the newest again. Returns the revision of each: (best, current).
pub async fn renew(client: &Client, model: &str, best: u64, current: u64) -> Result<(u64, u64), Failure> {
    Ok((go_back(client, model, best).await?, go_back(client, model, current).await?))
}

/// Makes a revision's weights the newest revision; returns its number.
pub async fn go_back(client: &Client, model: &str, revision: u64) -> Result<u64, Failure> {
    let info = client.rollback(model, revision).await?;
    info.revision.ok_or_else(|| Failure::new("the server answered a roll back without a revision"))
}
