// What a training did, in numbers that people can read. Pure.
import type { EvaluateResponse, TrainResponse } from '../api/types';
import { words } from './rules';
import type { Change } from './types';

/** The change of each card; several responses of one card are one text, so the first says it. */
export function changesOf(slots: string[], response: TrainResponse): Record<string, Change> {
  const changes: Record<string, Change> = {};
  response.responses.forEach((one, at) => {
    const id = slots[at];
    if (id === undefined || one.logprob_after === undefined || id in changes) return;
    changes[id] = { before: one.logprob_before, after: one.logprob_after };
  });
  return changes;
}

/** Under this change of a log-probability nobody would see a difference: 3 %. */
const SAME = 0.03;

export interface Likelihood {
  kind: 'more' | 'less' | 'same';
  /** Times as likely, at least 1, as text with two digits. */
  factor: string;
}

export function likelihood(change: Change): Likelihood {
  const delta = change.after - change.before;
  if (!Number.isFinite(delta) || Math.abs(delta) < SAME) return { kind: 'same', factor: '1' };
  const times = Math.exp(Math.abs(delta));
  const factor = times >= 1000 ? '>1000' : times >= 9.95 ? String(Math.round(times)) : times < 1.1 ? times.toFixed(2) : times.toFixed(1);
  return { kind: delta > 0 ? 'more' : 'less', factor };
}

/** How steep the line between before and after is, −1..1: equal factors up and down look alike, and none leaves the picture. */
export function slant(change: Change): number {
  const delta = change.after - change.before;
  return Number.isFinite(delta) ? Math.tanh(delta / 1.5) : 0;
}

export interface Warning {
  /** For programs, such as `moved_far`; empty where there is none. */
  name: string;
  text: string;
}

export function warningOf(line: string): Warning {
  const found = /^([a-z_]+): (.+)$/s.exec(line);
  return found ? { name: found[1] as string, text: found[2] as string } : { name: '', text: line };
}

export interface Comparison {
  from: number;
  to: number;
  prompts: { prompt: string; before: string[]; after: string[] }[];
  /** Mean words of an answer. */
  wordsBefore: number;
  wordsAfter: number;
}

const mean = (values: number[]) => (values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length);

/** The two revisions side by side. */
export function compare(evaluated: EvaluateResponse, prompts: string[], from: number): Comparison {
  const sides = evaluated.results.map((result, at) => ({
    prompt: prompts[at] ?? '',
    before: result.answers.against.map((answer) => answer.content),
    after: result.answers.model.map((answer) => answer.content),
  }));
  const before = sides.flatMap((side) => side.before);
  const after = sides.flatMap((side) => side.after);
  return {
    from,
    to: evaluated.revision,
    prompts: sides,
    wordsBefore: mean(before.map(words)),
    wordsAfter: mean(after.map(words)),
  };
}

/** Equal texts once, with how often, the most frequent first. */
export function tally(texts: string[]): { text: string; times: number }[] {
  const found = new Map<string, number>();
  for (const text of texts) found.set(text, (found.get(text) ?? 0) + 1);
  return [...found].map(([text, times]) => ({ text, times })).sort((one, other) => other.times - one.times);
}
