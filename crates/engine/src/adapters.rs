//! Adapters in memory by content id: loaded on demand, the longest unused dropped when they take too much, never one in use.
//! Does not know how one is loaded nor which request wants it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tiger_model::Adapter;

use crate::request::{AdapterId, BaseId};

/// Most adapters loaded at the same time: loads are bound by the disk.
const MAX_LOADING: usize = 4;

/// Most bytes of adapters, unless a quarter of the memory budget is less.
const MAX_BYTES: u64 = 2 << 30;

/// An adapter belongs to one base; its id alone would let a wrong pair through.
pub(crate) type AdapterKey = (BaseId, AdapterId);

/// A loaded adapter in somebody's hands. The outer count is ours alone: the source may keep the inner one too.
pub(crate) type Pin = Arc<Arc<Adapter>>;

struct Slot {
    adapter: Pin,
    bytes: u64,
    used: u64,
}

/// Loaded adapters and those being loaded.
pub(crate) struct AdapterSlots {
    slots: HashMap<AdapterKey, Slot>,
    loading: HashSet<AdapterKey>,
    bytes: u64,
    /// Size of the largest seen, to guess what the next load takes.
    typical_bytes: u64,
    limit_bytes: u64,
    clock: u64,
}

impl AdapterSlots {
    pub(crate) fn new(memory_budget_bytes: u64) -> AdapterSlots {
        AdapterSlots {
            slots: HashMap::new(),
            loading: HashSet::new(),
            bytes: 0,
            typical_bytes: 0,
            limit_bytes: (memory_budget_bytes / 4).min(MAX_BYTES),
            clock: 0,
        }
    }

    /// Bytes of all loaded adapters.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of loaded adapters.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn is_loading(&self, key: &AdapterKey) -> bool {
        self.loading.contains(key)
    }

    pub(crate) fn is_loaded(&self, key: &AdapterKey) -> bool {
        self.slots.contains_key(key)
    }

    /// The adapter for use: it stays as long as the caller keeps it.
    pub(crate) fn get(&mut self, key: &AdapterKey) -> Option<Pin> {
        self.clock += 1;
        let slot = self.slots.get_mut(key)?;
        slot.used = self.clock;
        Some(slot.adapter.clone())
    }

    /// Whether a load may begin now; then it counts as loading. Those in use and those loading must leave room for one more.
    pub(crate) fn begin_load(&mut self, key: &AdapterKey) -> bool {
        if self.loading.len() >= MAX_LOADING || self.loading.contains(key) || self.slots.contains_key(key) {
            return false;
        }
        let in_use: u64 = self.slots.values().filter(|s| Arc::strong_count(&s.adapter) > 1).map(|s| s.bytes).sum();
        let expected = in_use + (self.loading.len() as u64 + 1) * self.typical_bytes;
        if expected > self.limit_bytes && (in_use > 0 || !self.loading.is_empty()) {
            return false;
        }
        self.loading.insert(key.clone())
    }

    /// A load ended; `adapter` None if it failed.
    pub(crate) fn end_load(&mut self, key: AdapterKey, adapter: Option<Arc<Adapter>>) {
        self.loading.remove(&key);
        let Some(adapter) = adapter else { return };
        let bytes = adapter.bytes() as u64;
        self.typical_bytes = self.typical_bytes.max(bytes);
        self.clock += 1;
        if let Some(old) = self.slots.insert(key, Slot { adapter: Arc::new(adapter), bytes, used: self.clock }) {
            self.bytes -= old.bytes;
        }
        self.bytes += bytes;
        // The newest is wanted at once: it goes last.
        while self.bytes > self.limit_bytes && self.slots.len() > 1 && self.evict_one() {}
    }

    /// Drops the longest unused one that nobody holds.
    pub(crate) fn evict_one(&mut self) -> bool {
        let unused = self.slots.iter().filter(|(_, s)| Arc::strong_count(&s.adapter) == 1);
        let Some(key) = unused.min_by_key(|(_, s)| s.used).map(|(key, _)| key.clone()) else { return false };
        if let Some(slot) = self.slots.remove(&key) {
            self.bytes -= slot.bytes;
        }
        true
    }

    /// The count of bytes is right. The error says what is not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let counted: u64 = self.slots.values().map(|s| s.bytes).sum();
        if counted != self.bytes {
            return Err(format!("adapters take {counted} bytes, counted {}", self.bytes));
        }
        Ok(())
    }
}
