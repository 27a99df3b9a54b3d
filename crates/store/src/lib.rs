//! What survives a restart: accounts, keys, models, trainings, revisions, samples and usage as rows of SQLite, weights as immutable blobs.
//! Knows no HTTP, no tokens' meaning and no arithmetic: it stores what it is given and keeps two promises:
//!
//! 1. **The row is the commit point.** A blob is on the disk, synced and checked, before a row names it; what no row names is swept.
//! 2. **+1 exactly.** A training's end is one transaction: its row under its fence, the model by compare-and-swap, the revision row.
//!
//! Times are Unix seconds (`f64`) of the database's clock. Every call is asynchronous and may be dropped at any await: a write then
//! either happened wholly or not at all (run a commit in a spawned task when its answer must not be lost).

mod accounts;
mod blobs;
mod chats;
mod error;
mod integrity;
mod invitations;
mod keys;
mod known_keys;
mod models;
mod open;
mod revisions;
mod samples;
mod schema;
mod secret;
mod trains;
mod usage;

pub use accounts::{AccountId, AccountRow, SESSION_TTL_S, SessionRow};
pub use blobs::{Pin, StoredBlob, Swept, sha256_hex};
pub use chats::{ChatLimits, ChatPage, ChatRow, NewChat};
pub use error::{Error, Result};
pub use integrity::Report;
pub use invitations::{Invitation, InvitationId, InvitationRow};
pub use keys::{ApiKeyRow, Authenticated, KeyId, NewApiKey};
pub use models::{ModelKey, ModelPatch, ModelRow, NewModel, Sampling, Weights, slug};
pub use open::{Controls, FAILPOINTS, Failpoint, Options, Store};
pub use revisions::RevisionRow;
pub use samples::{NewSample, SAMPLE_TTL_S, SampleRow};
pub use trains::{
    BeginTrain, Begun, Interrupted, MAX_ATTEMPTS, MAX_QUEUED_PER_MODEL, Outcome, Recovered, Running, StoredAnswer, Ticket, TrainId,
    TrainRow, TrainState,
};
pub use usage::{UsageRecord, UsageSum};
