//! Packs prompts and responses into micro-batches; the responses of one prompt share its rows. Does not know losses.

use tiger_model::{Target, TrainBatch};

use super::{Group, Response};

/// Sequences that go through the model together, and which token each target is.
#[derive(Debug, Clone, Default)]
pub(super) struct MicroBatch {
    /// Rows and targets.
    pub batch: TrainBatch,
    /// (response counted over all groups, token within it) of each target.
    pub owners: Vec<(usize, usize)>,
}

impl MicroBatch {
    fn rows(&self) -> usize {
        self.batch.tokens.len()
    }

    /// Adds the rows of a sequence from `start` on; those before are segment `prefix`'s. Returns the segment.
    ///
    /// The last token of a sequence is a target but no row: nothing follows it.
    fn add(&mut self, response: usize, [prompt, tokens]: [&[u32]; 2], before: Option<(usize, usize)>) -> usize {
        let first = self.rows();
        let start = before.map_or(0, |(_, start)| start);
        let rows = prompt[start..].iter().chain(&tokens[..tokens.len() - 1]).copied();
        let segment = match before {
            Some((prefix, start)) => self.batch.push_after(prefix, start, rows),
            None => self.batch.push(rows),
        };
        for (t, &token) in tokens.iter().enumerate() {
            self.batch.targets.push(Target { row: first + prompt.len() - start - 1 + t, token });
            self.owners.push((response, t));
        }
        segment
    }
}

/// Every response in the request's order. The first of a group in a micro-batch has the whole prompt, the others what they cannot share
/// ([`TrainBatch::shareable`]).
///
/// A micro-batch has at most `limit` rows, and a longer sequence is alone. But where a prompt shares more than half of that, its responses
/// may add as many rows as they share: with less, a long prompt would be computed again for every few of them. A group that needs another
/// micro-batch begins one, so that its prompt is computed as seldom as can be. The order fixes the order of every sum over tokens.
pub(super) fn pack(groups: &[Group], limit: usize) -> Vec<MicroBatch> {
    let mut batches = Vec::new();
    let mut current = MicroBatch::default();
    let mut response = 0;
    for group in groups {
        let shared = if group.responses.len() > 1 { TrainBatch::shareable(group.prompt.len()) } else { 0 };
        let limit = limit.max(2 * shared);
        let own = |tokens: &[u32]| group.prompt.len() - shared + tokens.len() - 1;
        let all = shared + group.responses.iter().map(|r| own(&r.tokens)).sum::<usize>();
        if shared > 0 && current.rows() > 0 && current.rows() + all > limit {
            batches.push(std::mem::take(&mut current));
        }
        let mut first = None;
        for Response { tokens, .. } in &group.responses {
            let needed = own(tokens) + if first.is_some() { 0 } else { shared };
            if current.rows() > 0 && current.rows() + needed > limit {
                batches.push(std::mem::take(&mut current));
                first = None;
            }
            let segment = current.add(response, [&group.prompt, tokens], first.map(|first| (first, shared)));
            if shared > 0 {
                first.get_or_insert(segment);
            }
            response += 1;
        }
    }
    batches.push(current);
    batches
}
