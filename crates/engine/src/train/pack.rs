//! Packs prompts and responses into micro-batches of whole sequences. Does not know losses.

use tiger_model::{Target, TrainBatch};

use super::Group;

/// Sequences that go through the model together, and which token each target is.
#[derive(Debug, Clone, Default)]
pub(super) struct MicroBatch {
    /// Rows and targets.
    pub batch: TrainBatch,
    /// (response counted over all groups, token within it) of each target.
    pub owners: Vec<(usize, usize)>,
}

/// Every response with its own copy of the prompt, in the request's order, up to `limit` tokens a micro-batch; a longer sequence is alone in its own.
///
/// The last token of a sequence is a target but no row: nothing follows it. The order fixes the order of every sum over tokens.
pub(super) fn pack(groups: &[Group], limit: usize) -> Vec<MicroBatch> {
    let mut batches = Vec::new();
    let mut current = MicroBatch::default();
    let responses = groups.iter().flat_map(|g| g.responses.iter().map(move |r| (&g.prompt, &r.tokens)));
    for (response, (prompt, tokens)) in responses.enumerate() {
        let rows = prompt.len() + tokens.len() - 1;
        if !current.owners.is_empty() && current.batch.tokens.len() + rows > limit {
            batches.push(std::mem::take(&mut current));
        }
        let first = current.batch.tokens.len();
        current.batch.tokens.extend(prompt.iter().chain(&tokens[..tokens.len() - 1]));
        current.batch.sequences.push(first..first + rows);
        for (t, &token) in tokens.iter().enumerate() {
            current.batch.targets.push(Target { row: first + prompt.len() - 1 + t, token });
            current.owners.push((response, t));
        }
    }
    batches.push(current);
    batches
}
