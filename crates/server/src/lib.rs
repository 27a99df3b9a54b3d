//! The door: HTTP in, engine and store behind. Here untrusted becomes trusted: wire types are checked and converted, text becomes ids.
//! Does not know how a token or a gradient is made, nor how rows are stored.

mod app;
mod auth;
pub mod bases;
mod chats;
pub mod config;
mod convert;
mod error;
mod evaluation;
mod flight;
mod generation;
pub mod limits;
mod metrics;
mod notes;
mod openai;
mod openapi;
mod page;
mod prompt;
mod pulls;
mod recorder;
mod router;
mod routes;
mod serve;
mod source;
mod stream;
mod target;
mod text;
mod training;

pub use app::{App, StartError};
pub use bases::{hub_repository, known_repository};
pub use config::{BaseFolder, Clock, Config};
pub use limits::Limits;
pub use page::file_names;
pub use pulls::{OnProgress, Pull, PullProgress, Puller, Pulling};
pub use router::router;
pub use serve::serve;
