//! Paged memory of keys and values, all layers of one model. Does not know who owns a page.

use tiger_kernels::ops::attention::{KvLayer, PageId};

use crate::weights::Model;

/// Pages for every layer; a [`PageId`] names the same place in each.
#[derive(Debug)]
pub struct Kv {
    pub(crate) layers: Vec<KvLayer>,
    pages: usize,
}

impl Kv {
    /// `pages` pages of [`PAGE_TOKENS`](crate::PAGE_TOKENS) positions. Untouched pages cost address space, not memory.
    pub fn new(model: &Model, pages: usize) -> Kv {
        let layers = (0..model.architecture().layers).map(|_| KvLayer::new(model.kv_shape(), model.kv_type(), pages)).collect();
        Kv { layers, pages }
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Copies one page in every layer (copy on write of a shared, partly filled page).
    pub fn copy_page(&mut self, from: PageId, to: PageId) {
        for layer in &mut self.layers {
            layer.copy_page(from, to);
        }
    }
}
