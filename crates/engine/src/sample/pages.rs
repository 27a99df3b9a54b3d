//! Pages of one base's KV memory: who holds them, and which prefixes lie in them for others to share.
//! Knows page numbers and token ids, neither tensors nor requests.
//!
//! A full page is found by its content: the edge (what came before, its 16 tokens) is compared itself, not only its hash, so that two
//! prefixes can never be taken for each other. A page is written by one sequence; once full and published it is read by many.

use std::collections::{BTreeSet, HashMap};

use tiger_model::{PAGE_TOKENS, PageId};

use crate::request::AdapterId;

/// A full page of known content in the prefix tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

/// What lies before a page: nothing (then the adapter decides the keys and values), or another page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Before {
    /// Start of a sequence under an adapter.
    Start(Option<AdapterId>),
    /// After this page.
    Page(NodeId),
}

/// The content that names a page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Edge {
    before: Before,
    tokens: [u32; PAGE_TOKENS],
}

#[derive(Debug)]
struct Node {
    page: PageId,
    edge: Edge,
    children: u32,
    /// When a sequence last took or left it.
    used: u64,
}

/// A prefix found in the tree: pages in order, one owner each more than before, and the last one's node.
#[derive(Debug, Default)]
pub struct Prefix {
    /// Pages of the first `16 · pages.len()` tokens.
    pub pages: Vec<PageId>,
    /// Node of the last page.
    pub node: Option<NodeId>,
}

/// All pages of one base.
#[derive(Debug)]
pub struct Pages {
    /// Holders of each page; the prefix tree is one of them.
    owners: Vec<u32>,
    free: Vec<PageId>,
    nodes: HashMap<NodeId, Node>,
    edges: HashMap<Edge, NodeId>,
    node_of_page: Vec<Option<NodeId>>,
    /// Leaves that only the tree holds, longest unused first: what is evicted.
    evictable: BTreeSet<(u64, NodeId)>,
    /// Nodes that only the tree holds, leaves or not. All of them can be evicted, leaves first.
    idle: usize,
    clock: u64,
}

impl Pages {
    /// `count` free pages.
    pub fn new(count: usize) -> Pages {
        Pages {
            owners: vec![0; count],
            free: (0..count).rev().map(page).collect(),
            nodes: HashMap::new(),
            edges: HashMap::new(),
            node_of_page: vec![None; count],
            evictable: BTreeSet::new(),
            idle: 0,
            clock: 0,
        }
    }

    /// Pages in all.
    pub fn total(&self) -> usize {
        self.owners.len()
    }

    /// Pages that [`Pages::take`] can still give: free ones and those that only the prefix tree holds.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle
    }

    /// Pages that hold something of a sequence or a prefix.
    pub fn used(&self) -> usize {
        self.total() - self.free.len()
    }

    /// A page of unknown content with one owner; evicts the longest unused prefix when none is free.
    pub fn take(&mut self) -> Option<PageId> {
        if self.free.is_empty() {
            self.evict();
        }
        let page = self.free.pop()?;
        self.owners[index(page)] = 1;
        Some(page)
    }

    /// One more owner of a held page.
    pub fn share(&mut self, page: PageId) {
        assert!(self.owners[index(page)] > 0, "only a held page is shared");
        self.owners[index(page)] += 1;
        if self.owners[index(page)] == 2
            && let Some(id) = self.node_of_page[index(page)]
        {
            self.idle -= 1;
            let node = &self.nodes[&id];
            self.evictable.remove(&(node.used, id));
        }
    }

    /// One owner less; the last one frees the page.
    pub fn release(&mut self, page: PageId) {
        let owners = &mut self.owners[index(page)];
        assert!(*owners > 0, "a page is released once per owner");
        *owners -= 1;
        match (*owners, self.node_of_page[index(page)]) {
            (0, None) => self.free.push(page),
            (1, Some(id)) => self.rest(id),
            (0, Some(_)) => unreachable!("the prefix tree is an owner until it evicts"),
            _ => {}
        }
    }

    /// The longest published prefix of `tokens` under `adapter` that leaves at least one token to compute. Its pages get one more owner.
    pub fn find(&mut self, adapter: Option<AdapterId>, tokens: impl Iterator<Item = u32>) -> Prefix {
        let mut tokens = tokens.peekable();
        let mut found = Prefix::default();
        let mut before = Before::Start(adapter);
        loop {
            let mut key = Edge { before, tokens: [0; PAGE_TOKENS] };
            for slot in &mut key.tokens {
                let Some(token) = tokens.next() else { return found };
                *slot = token;
            }
            let Some(&id) = self.edges.get(&key) else { return found };
            if tokens.peek().is_none() {
                return found;
            }
            let page = self.nodes[&id].page;
            self.share(page);
            found.pages.push(page);
            found.node = Some(id);
            before = Before::Page(id);
        }
    }

    /// Makes the content of a full page known. When the same content is there already, the owner moves to that page (the bits are
    /// equal, by the exactness rule) and `page` is released. Returns the node and the page to use from now on.
    pub fn publish(&mut self, before: Before, tokens: [u32; PAGE_TOKENS], page: PageId) -> (NodeId, PageId) {
        let edge = Edge { before, tokens };
        if let Some(&id) = self.edges.get(&edge) {
            let known = self.nodes[&id].page;
            if known != page {
                self.share(known);
                self.release(page);
            }
            return (id, known);
        }
        self.clock += 1;
        let id = NodeId(self.clock);
        if let Before::Page(parent) = before
            && let Some(parent) = self.nodes.get_mut(&parent)
        {
            parent.children += 1;
        }
        self.owners[index(page)] += 1;
        self.node_of_page[index(page)] = Some(id);
        self.edges.insert(edge.clone(), id);
        self.nodes.insert(id, Node { page, edge, children: 0, used: self.clock });
        (id, page)
    }

    /// Only the tree holds this node now.
    fn rest(&mut self, id: NodeId) {
        self.clock += 1;
        self.idle += 1;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.used = self.clock;
            if node.children == 0 {
                self.evictable.insert((node.used, id));
            }
        }
    }

    /// Frees the longest unused leaf of the tree.
    fn evict(&mut self) {
        let Some((_, id)) = self.evictable.pop_first() else { return };
        let Some(node) = self.nodes.remove(&id) else { return };
        self.edges.remove(&node.edge);
        self.node_of_page[index(node.page)] = None;
        self.owners[index(node.page)] = 0;
        self.idle -= 1;
        self.free.push(node.page);
        if let Before::Page(parent_id) = node.edge.before
            && let Some(parent) = self.nodes.get_mut(&parent_id)
        {
            parent.children -= 1;
            if parent.children == 0 && self.owners[index(parent.page)] == 1 {
                self.evictable.insert((parent.used, parent_id));
            }
        }
    }

    /// Compares every count with `held`, the pages that sequences hold (one entry per holder). The error says what differs.
    pub fn check(&self, held: impl Iterator<Item = PageId>) -> Result<(), String> {
        let mut expected = vec![0u32; self.total()];
        for page in held {
            expected[index(page)] += 1;
        }
        let held_by_sequences = expected.clone();
        for (id, node) in &self.nodes {
            expected[index(node.page)] += 1;
            if self.node_of_page[index(node.page)] != Some(*id) || self.edges.get(&node.edge) != Some(id) {
                return Err(format!("prefix node {id:?} and its page {:?} do not name each other", node.page));
            }
        }
        if expected != self.owners {
            let at = (0..self.total()).find(|&i| expected[i] != self.owners[i]).unwrap_or(0);
            return Err(format!("page {at} counts {} owners but has {}", self.owners[at], expected[at]));
        }
        let mut free = vec![false; self.total()];
        for page in &self.free {
            if std::mem::replace(&mut free[index(*page)], true) || self.owners[index(*page)] != 0 {
                return Err(format!("page {page:?} is free twice or while it is held"));
            }
        }
        if let Some(lost) = (0..self.total()).find(|&i| self.owners[i] == 0 && !free[i]) {
            return Err(format!("page {lost} has no owner and is not free"));
        }
        self.check_tree(&held_by_sequences)
    }

    fn check_tree(&self, held: &[u32]) -> Result<(), String> {
        let mut children: HashMap<NodeId, u32> = HashMap::new();
        for node in self.nodes.values() {
            let Before::Page(parent) = node.edge.before else { continue };
            let Some(parent_node) = self.nodes.get(&parent) else {
                return Err(format!("prefix node {parent:?} is gone before its children"));
            };
            if held[index(node.page)] > 0 && held[index(parent_node.page)] == 0 {
                return Err(format!("page {:?} is held without the page before it", node.page));
            }
            *children.entry(parent).or_default() += 1;
        }
        let mut idle = 0;
        for (id, node) in &self.nodes {
            if children.get(id).copied().unwrap_or(0) != node.children {
                return Err(format!("prefix node {id:?} counts {} children", node.children));
            }
            let resting = held[index(node.page)] == 0;
            idle += usize::from(resting);
            if self.evictable.contains(&(node.used, *id)) != (resting && node.children == 0) {
                return Err(format!("prefix node {id:?} is in the wrong eviction state"));
            }
        }
        if idle != self.idle || self.edges.len() != self.nodes.len() {
            return Err(format!(
                "{idle} idle prefix pages, counted {}; {} edges of {} nodes",
                self.idle,
                self.edges.len(),
                self.nodes.len()
            ));
        }
        Ok(())
    }
}

fn page(index: usize) -> PageId {
    // More pages than u32 counts would be petabytes of keys and values.
    PageId(index as u32)
}

fn index(page: PageId) -> usize {
    page.0 as usize
}
