//! Shares one step's rows out: decodes first, the rest to prompts, evenly between accounts.
//! Pure arithmetic on counts; how a prompt is cut into steps never changes a result (the exactness rule), so only time is at stake.

use std::collections::BTreeMap;

use super::sequence::SequenceKey;

/// Rows that a running sequence could use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Whose.
    pub key: SequenceKey,
    /// Account.
    pub account: u64,
    /// Tokens to compute; 1 is a decode.
    pub tokens: usize,
}

/// Rows that a sequence gets in this step, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Whose.
    pub key: SequenceKey,
    /// Rows of its known tokens.
    pub tokens: usize,
    /// Rows of drafted tokens behind them; once drawn, those that were right.
    pub drafts: usize,
}

/// Part of a step kept for prompts while decodes alone would fill it: one row in four, so that neither starves the other.
const PROMPT_SHARE: usize = 4;

/// Grants at most `budget` ≥ 1 rows, oldest sequence first. `turn` counts steps, so that a crowd takes turns.
pub fn plan(demands: &[Demand], budget: usize, turn: u64) -> Vec<Grant> {
    let budget = budget.max(1);
    let decodes: Vec<&Demand> = demands.iter().filter(|d| d.tokens == 1).collect();
    let prompts: Vec<&Demand> = demands.iter().filter(|d| d.tokens > 1).collect();
    let kept = if prompts.is_empty() {
        0
    } else if budget == 1 {
        // A step of one row: every second one is for prompts.
        (turn % 2) as usize
    } else {
        budget.div_ceil(PROMPT_SHARE)
    };
    // Where alternate steps serve one kind, the other's rotation must not see only even or only odd steps.
    let round = if budget == 1 && !prompts.is_empty() { turn / 2 } else { turn };
    let mut grants: Vec<Grant> = Vec::with_capacity(demands.len());
    let decoding = decodes.len().min(budget - kept);
    let first = if decoding < decodes.len() { (round.wrapping_mul(decoding.max(1) as u64) % decodes.len() as u64) as usize } else { 0 };
    grants.extend((0..decoding).map(|i| Grant { key: decodes[(first + i) % decodes.len()].key, tokens: 1, drafts: 0 }));
    share(&prompts, budget - decoding, round, &mut grants);
    grants.sort_unstable_by_key(|g| g.key);
    grants
}

/// Water-filling: every account gets the same number of rows, what one cannot use goes to the others; within an account the oldest first.
fn share(prompts: &[&Demand], budget: usize, turn: u64, grants: &mut Vec<Grant>) {
    let mut wanted: BTreeMap<u64, usize> = BTreeMap::new();
    for demand in prompts {
        *wanted.entry(demand.account).or_default() += demand.tokens;
    }
    let mut given: BTreeMap<u64, usize> = BTreeMap::new();
    let mut left = budget;
    while left > 0 && !wanted.is_empty() {
        let even = left / wanted.len();
        if even == 0 {
            // Fewer rows than accounts: one row each, beginning elsewhere every step.
            let accounts: Vec<u64> = wanted.keys().copied().collect();
            for i in 0..left {
                *given.entry(accounts[((turn as usize) + i) % accounts.len()]).or_default() += 1;
            }
            break;
        }
        for (account, want) in &mut wanted {
            let rows = even.min(*want);
            *want -= rows;
            left -= rows;
            *given.entry(*account).or_default() += rows;
        }
        wanted.retain(|_, want| *want > 0);
    }
    for demand in prompts {
        let Some(rows) = given.get_mut(&demand.account) else { continue };
        let tokens = demand.tokens.min(*rows);
        *rows -= tokens;
        if tokens > 0 {
            grants.push(Grant { key: demand.key, tokens, drafts: 0 });
        }
    }
}
