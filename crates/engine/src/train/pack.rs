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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use tiger_formats::{Architecture, Rope, RopeScaling};
    use tiger_model::Keep;

    /// Llama-3.2-1B.
    fn one_billion() -> Architecture {
        Architecture {
            hidden: 2048,
            layers: 16,
            heads: 32,
            kv_heads: 8,
            head_dim: 64,
            ffn: 8192,
            vocab: 128_256,
            norm_eps: 1e-5,
            rope: Rope { theta: 500_000.0, scaling: RopeScaling::None },
            context_length: 131_072,
            tied: true,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
        }
    }

    #[test]
    fn a_call_of_64_times_2048_tokens_stays_within_the_activation_budget() {
        let (config, a) = (Config::default(), one_billion());
        let response = |prompt: usize| Response { tokens: vec![1; 2048 - prompt], reward: 0.0, recorded: None };
        // Eight groups of eight that share a prompt, and 64 that share nothing.
        let sharing = (0..8).map(|_| Group { prompt: vec![0; 1024], responses: (0..8).map(|_| response(1024)).collect() }).collect();
        let apart = (0..64).map(|_| Group { prompt: vec![0], responses: vec![response(1)] }).collect();
        let all: [Vec<Group>; 2] = [sharing, apart];
        for groups in all {
            let batches = pack(&groups, config.micro_batch_tokens);
            let trained: usize = batches.iter().map(|b| b.owners.len()).sum();
            assert_eq!(trained, groups.iter().flat_map(|g| &g.responses).map(|r| r.tokens.len()).sum::<usize>(), "every token once");
            assert!(batches.len() > 1);
            for micro in &batches {
                let keep = micro.batch.keep_within(config.activation_bytes, &a, 16);
                let kept = micro.batch.kept_bytes(keep, &a, 16);
                assert!(kept <= config.activation_bytes, "{} rows keep {kept} bytes ({keep:?})", micro.rows());
                assert!(micro.rows() <= 2048);
                // The budget is used: one layer more would not fit.
                if let Keep::Last(layers) = keep {
                    assert!(micro.batch.kept_bytes(Keep::Last(layers + 1), &a, 16) > config.activation_bytes);
                }
            }
        }
    }
}
