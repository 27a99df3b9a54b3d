//! The invariants of durable state, checked on demand: by tests after every step, by operators when in doubt. Changes nothing.

use crate::{Error, ModelKey, Result, Store, TrainId};
use std::collections::BTreeSet;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Live models.
    pub models: usize,
    /// Their revisions.
    pub revisions: usize,
    /// Blobs that they name, each read and hashed.
    pub blobs: usize,
    /// Every broken invariant in words; empty when all is well.
    pub problems: Vec<String>,
}

#[derive(sqlx::FromRow)]
struct Head {
    key: ModelKey,
    id: String,
    revision: i64,
    blob_sha256: String,
    optimizer_sha256: Option<String>,
    reference_sha256: String,
}

#[derive(sqlx::FromRow)]
struct Link {
    revision: i64,
    train: Option<TrainId>,
    blob_sha256: Option<String>,
    optimizer_sha256: Option<String>,
    made_by_done: Option<bool>,
    says: Option<i64>,
    base: Option<i64>,
}

impl Store {
    /// Checks every invariant, reading every blob that a live model names:
    ///
    /// 1. A model's revisions are 0, 1, … up to its own, without a gap.
    /// 2. Its weights and optimizer state are those of its newest revision, its reference those of revision 0.
    /// 3. Revision n is 0, a rollback, or made by one training that is done and says: from n - 1 to n.
    /// 4. Every training that says it made a revision has its row.
    /// 5. At most one training of a model runs; a deleted model has none waiting or running.
    /// 6. Every named blob is there and has its sha256; from the first training on there is an optimizer state.
    pub async fn check(&self) -> Result<Report> {
        let mut report = Report::default();
        let mut named = BTreeSet::new();
        // One transaction, so that all questions see the same state.
        let mut tx = self.readers().begin().await?;
        let heads: Vec<Head> =
            sqlx::query_as("SELECT key, id, revision, blob_sha256, optimizer_sha256, reference_sha256 FROM model WHERE deleted_at IS NULL")
                .fetch_all(&mut *tx)
                .await?;
        for head in heads {
            let query = "SELECT r.revision, r.train, r.blob_sha256, r.optimizer_sha256, t.state = 'done' AS made_by_done,
                           t.new_revision AS says, t.base_revision AS base
                         FROM revision r LEFT JOIN train t ON t.id = r.train AND t.model = r.model WHERE r.model = ? ORDER BY r.revision";
            let links: Vec<Link> = sqlx::query_as(query).bind(head.key).fetch_all(&mut *tx).await?;
            report.models += 1;
            report.revisions += links.len();
            let wrong = chain_problems(&head, &links);
            report.problems.extend(wrong.into_iter().map(|what| format!("model {} ({}): {what}", head.id, head.key.0)));
            named.extend(links.into_iter().flat_map(|link| [link.blob_sha256, link.optimizer_sha256]).flatten());
            named.extend([head.blob_sha256, head.reference_sha256]);
            named.extend(head.optimizer_sha256);
        }
        let questions = [
            (
                "a training says it made a revision that is not there",
                "SELECT t.id FROM train t WHERE t.new_revision IS NOT NULL AND NOT EXISTS (SELECT 1 FROM revision r WHERE r.train = t.id AND r.revision = t.new_revision)",
            ),
            ("two trainings of one model run", "SELECT max(id) FROM train WHERE state = 'running' GROUP BY model HAVING count(*) > 1"),
            (
                "a training of a deleted model goes on",
                "SELECT t.id FROM train t JOIN model m ON m.key = t.model WHERE m.deleted_at IS NOT NULL AND t.state IN ('queued', 'running')",
            ),
            (
                "an ended training still keeps its request",
                "SELECT id FROM train WHERE request IS NOT NULL AND state NOT IN ('queued', 'running')",
            ),
        ];
        for (what, query) in questions {
            let ids: Vec<i64> = sqlx::query_scalar(query).fetch_all(&mut *tx).await?;
            report.problems.extend(ids.into_iter().map(|id| format!("{what} (training {id})")));
        }
        tx.rollback().await?;
        report.blobs = named.len();
        for sha256 in named {
            match self.blob(&sha256).await {
                Ok(_) => {}
                Err(damaged @ (Error::DamagedBlob { .. } | Error::Invalid { .. })) => report.problems.push(damaged.to_string()),
                Err(e) => return Err(e),
            }
        }
        Ok(report)
    }
}

fn chain_problems(head: &Head, links: &[Link]) -> Vec<String> {
    let mut problems = Vec::new();
    let numbers = links.iter().map(|link| link.revision);
    if !numbers.eq(0..=head.revision) {
        problems.push(format!("its revisions are not 0 to {} without a gap", head.revision));
    }
    if let Some(last) = links.last() {
        if last.blob_sha256.as_ref() != Some(&head.blob_sha256) {
            problems.push("its weights are not those of its newest revision".to_owned());
        }
        if last.optimizer_sha256 != head.optimizer_sha256 {
            problems.push("its optimizer state is not that of its newest revision".to_owned());
        }
        if last.train.is_some() && head.optimizer_sha256.is_none() {
            problems.push("it was trained and has no optimizer state".to_owned());
        }
    }
    if links.first().is_some_and(|first| first.blob_sha256.as_ref() != Some(&head.reference_sha256) || first.train.is_some()) {
        problems.push("its reference is not the weights of revision 0".to_owned());
    }
    for link in links.iter().filter(|link| link.train.is_some()) {
        let n = link.revision;
        if link.made_by_done != Some(true) || link.says != Some(n) || link.base != Some(n - 1) {
            problems.push(format!("revision {n} was made by a training that says from {:?} to {:?}", link.base, link.says));
        }
    }
    problems
}
