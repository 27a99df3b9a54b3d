// Two sides' answers to the same prompts: pairs, rules that judge them, votes without knowing the side, numbers. Pure.
import type { EvaluateResponse, EvaluatedAnswer, Message, Sample } from '../api/types';

export interface Answer {
  content: string;
  reasoning?: string;
  stop_reason: string;
  tokens?: number;
  /** Mean per token under the side that made it, and under the other one. */
  logprob?: number;
  logprobOther?: number;
}
export interface Pair {
  prompt: string;
  /** From 0. */
  sample: number;
  a: Answer;
  b: Answer;
}
export interface Side {
  model: string;
  revision?: number;
  label: string;
}
export interface Comparison {
  a: Side;
  b: Side;
  seed: number;
  pairs: Pair[];
  /** Nats per token, where both sides scored each other's answers. */
  kl?: number;
}

/** Prompts of a text, one a line; empty lines are left out. */
export const promptsOf = (text: string) => text.split('\n').map((line) => line.trim()).filter(Boolean);

export const asMessages = (prompt: string): Message[] => [{ role: 'user', content: prompt }];

function scored(answer: EvaluatedAnswer): Answer {
  const { content, reasoning, stop_reason, tokens, logprob, logprob_other } = answer;
  return { content, reasoning, stop_reason, tokens, logprob, logprobOther: logprob_other };
}

/** Pairs of an evaluation: answers with the same seed stand side by side. */
export function fromEvaluation(prompts: readonly string[], answer: EvaluateResponse): Pair[] {
  return answer.results.flatMap(({ answers }, at) =>
    answers.model.flatMap((model, sample) => {
      const against = answers.against[sample];
      return against ? [{ prompt: prompts[at] ?? '', sample, a: scored(model), b: scored(against) }] : [];
    }),
  );
}

/** Pairs of two models' samples of one prompt. */
export function fromSamples(prompt: string, a: readonly Sample[], b: readonly Sample[]): Pair[] {
  const plain = ({ content, reasoning, stop_reason }: Sample): Answer => ({ content, reasoning, stop_reason });
  return a.flatMap((one, sample) => {
    const other = b[sample];
    return other ? [{ prompt, sample, a: plain(one), b: plain(other) }] : [];
  });
}

export interface Rule {
  kind: 'contains' | 'regex';
  text: string;
}

/** The test of a rule; undefined without one, an error's message where it is no regular expression. */
export function ruleOf(rule: Rule): { passes?: (text: string) => boolean; problem?: string } {
  if (!rule.text) return {};
  if (rule.kind === 'contains') {
    const wanted = rule.text.toLowerCase();
    return { passes: (text) => text.toLowerCase().includes(wanted) };
  }
  try {
    const pattern = new RegExp(rule.text, 'u');
    return { passes: (text) => pattern.test(text) };
  } catch (thrown) {
    return { problem: thrown instanceof Error ? thrown.message : String(thrown) };
  }
}

export type Winner = 'a' | 'b' | 'tie';
export interface Tally {
  a: number;
  b: number;
  tie: number;
}

export function tally(winners: Iterable<Winner | undefined>): Tally {
  const found: Tally = { a: 0, b: 0, tie: 0 };
  for (const winner of winners) if (winner) found[winner]++;
  return found;
}

/** Who wins a pair by a rule: the side that alone passes it. */
export function winnerBy(passes: (text: string) => boolean, pair: Pair): Winner {
  const a = passes(pair.a.content);
  const b = passes(pair.b.content);
  return a === b ? 'tie' : a ? 'a' : 'b';
}

/** Win rate of a; ties count half. */
export function winRate({ a, b, tie }: Tally): number | undefined {
  const all = a + b + tie;
  return all === 0 ? undefined : (a + tie / 2) / all;
}

/** Mean log-prob per token over all answers of a side, under itself and under the other side. */
export function meanLogprob(answers: readonly Answer[]): { own?: number; other?: number } {
  let tokens = 0;
  let own = 0;
  let other = 0;
  for (const answer of answers) {
    if (answer.logprob === undefined || answer.logprobOther === undefined || !answer.tokens) continue;
    tokens += answer.tokens;
    own += answer.logprob * answer.tokens;
    other += answer.logprobOther * answer.tokens;
  }
  return tokens === 0 ? {} : { own: own / tokens, other: other / tokens };
}

/** For each pair, whether its sides are swapped in a blind vote. The same seed gives the same order. */
export function swaps(count: number, seed: number): boolean[] {
  let state = (seed >>> 0) ^ 0x9e3779b9;
  return Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state & 0x100) !== 0;
  });
}

/** Pairs by prompt, in the order they came. */
export function byPrompt(pairs: readonly Pair[]): { prompt: string; pairs: { pair: Pair; index: number }[] }[] {
  const groups: { prompt: string; pairs: { pair: Pair; index: number }[] }[] = [];
  pairs.forEach((pair, index) => {
    // The same prompt twice is two groups: samples begin again at 0.
    if (pair.sample === 0 || groups.length === 0) groups.push({ prompt: pair.prompt, pairs: [] });
    groups.at(-1)?.pairs.push({ pair, index });
  });
  return groups;
}
