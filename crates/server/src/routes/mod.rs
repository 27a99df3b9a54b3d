//! One file for each branch of the URL tree; wire types in, wire types out.

pub mod account;
pub mod accounts;
pub mod adapter;
pub mod adapters;
pub mod chats;
pub mod evaluate;
pub mod generate;
pub mod health;
pub mod keys;
pub mod models;
pub mod openai;
pub mod pulls;
pub mod revisions;
pub mod train;
pub mod usage;

use std::sync::Arc;

use axum::Extension;

use crate::flight::Flight;

/// The request's own facts, put in by the outermost layer.
pub type InFlight = Extension<Arc<Flight>>;
