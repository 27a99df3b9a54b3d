// Rounds by themselves: ask, rate by the rule, train, until nearly all answers fit. Knows the actions, no component.
import { ask, compareRevisions, train } from './actions.svelte';
import { meanReward } from './ratings';
import { shareOf } from './rules';
import { ANSWERS, asksAnew, ready, target, teach } from './state.svelte';

export const ROUNDS = 10;
/** Enough: a share of answers that fit. */
export const GOAL = 0.95;
/** Fewer answers to a prompt often have none that fits, and then there is nothing to prefer. */
const AT_LEAST = 8;

/** Runs up to ten rounds; the stop button ends it after the training that runs. */
export async function autoTrain(): Promise<void> {
  const start = target()?.revision;
  if (start === undefined || !teach.rule) return;
  Object.assign(teach, { busy: 'auto', stopping: false, autoEnd: '', rounds: [], outcome: undefined, comparison: undefined, compareError: undefined });
  const count = Math.min(ANSWERS.max, Math.max(teach.count, AT_LEAST));
  let updated = false;
  try {
    for (let round = 0; ; round++) {
      // Answers that are on the table and not trained yet are the first round's.
      const have = round === 0 && !asksAnew() && !teach.settled && ready().state !== 'empty';
      if (!have && !(await ask(count))) return end(teach.stopping ? 'stopped' : 'failed');
      const share = shareOf(teach.rule, teach.groups);
      teach.rounds.push({ revision: target()?.revision ?? 0, share, rewardMean: meanReward(teach.groups), trained: false });
      if (share && share.fit / share.of >= GOAL) return done();
      if (round >= ROUNDS) return end('limit');
      if (teach.stopping) return end('stopped');
      // Where all answers have one rating, other answers may differ.
      if (ready().state !== 'ready') continue;
      if (!(await train())) return end('failed');
      if (!teach.outcome?.response.updated && teach.outcome?.response.reason !== 'zero_advantage') return end('failed');
      const last = teach.rounds.at(-1);
      if (last) last.trained = true;
      updated = true;
      if (teach.stopping) return end('stopped');
    }
  } finally {
    if (updated && teach.outcome) {
      teach.outcome.from = start;
      teach.stopping = false;
      await compareRevisions(start);
    }
    teach.busy = '';
    teach.stopping = false;
  }
}

/** All is well: nothing waits to be trained. */
function done(): void {
  teach.settled = true;
  end('reached');
}

function end(how: typeof teach.autoEnd): void {
  teach.autoEnd = how;
}
