//! Where weights come from, as the engine sees it: injected by whoever knows files.

use std::sync::Arc;

use tiger_model::{Adapter, Model};

use crate::request::{AdapterId, BaseId};

/// Tells how far a load has come: stage in a few words, 0..1.
pub type Progress<'a> = &'a (dyn Fn(&str, f32) + Sync);

/// Loads bases and adapters. Called on threads of the engine that may block.
pub trait Source: Send + Sync {
    /// Loads a base; the error text is shown to the caller.
    fn base(&self, id: &BaseId, progress: Progress<'_>) -> Result<Arc<Model>, String>;
    /// Bytes that the base will take when loaded, to make room first.
    fn base_bytes(&self, id: &BaseId) -> Result<u64, String>;
    /// Loads one adapter revision for a base.
    fn adapter(&self, base: &BaseId, id: &AdapterId) -> Result<Arc<Adapter>, String>;
}
