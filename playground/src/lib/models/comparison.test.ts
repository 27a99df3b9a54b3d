// Pairs, rules, votes and means.
import { expect, test } from 'vitest';
import type { EvaluateResponse, Sample } from '../api/types';
import { type Answer, byPrompt, fromEvaluation, fromSamples, meanLogprob, type Pair, promptsOf, ruleOf, swaps, tally, winnerBy, winRate } from './comparison';

const answer = (content: string, more: Partial<Answer> = {}): Answer => ({ content, stop_reason: 'end_turn', ...more });
const pair = (a: string, b: string, sample = 0, prompt = 'p'): Pair => ({ prompt, sample, a: answer(a), b: answer(b) });

test('prompts, one a line', () => {
  expect(promptsOf(' one \n\n two\r\n')).toEqual(['one', 'two']);
});

test('an evaluation as pairs', () => {
  const scored = (content: string) => ({ content, stop_reason: 'end_turn', response_id: 'r', tokens: 2, logprob: -1, logprob_other: -2 });
  const evaluated = {
    results: [{ answers: { model: [scored('a1'), scored('a2')], against: [scored('b1'), scored('b2')] } }, { answers: { model: [scored('c')], against: [scored('d')] } }],
  } as unknown as EvaluateResponse;
  const pairs = fromEvaluation(['first', 'second'], evaluated);
  expect(pairs.map((one) => [one.prompt, one.sample, one.a.content, one.b.content])).toEqual([
    ['first', 0, 'a1', 'b1'],
    ['first', 1, 'a2', 'b2'],
    ['second', 0, 'c', 'd'],
  ]);
  expect(pairs[0]!.a).toMatchObject({ tokens: 2, logprob: -1, logprobOther: -2 });
  expect(byPrompt(pairs).map((group) => group.pairs.map((one) => one.index))).toEqual([[0, 1], [2]]);
});

test('samples as pairs, and the same prompt twice is two groups', () => {
  const sample = (content: string) => ({ content, stop_reason: 'end_turn', response_id: 'r' }) as Sample;
  const pairs = [...fromSamples('p', [sample('a'), sample('b')], [sample('c')]), ...fromSamples('p', [sample('a')], [sample('d')])];
  expect(pairs).toHaveLength(2);
  expect(byPrompt(pairs)).toHaveLength(2);
});

test('rules', () => {
  expect(ruleOf({ kind: 'contains', text: '' })).toEqual({});
  expect(ruleOf({ kind: 'contains', text: 'ARR' }).passes?.('Arr, matey')).toBe(true);
  expect(ruleOf({ kind: 'regex', text: '^A' }).passes?.('arr')).toBe(false);
  expect(ruleOf({ kind: 'regex', text: '(' }).problem).toBeTruthy();
});

test('wins', () => {
  const passes = ruleOf({ kind: 'contains', text: 'arr' }).passes!;
  const winners = [pair('arr', 'x'), pair('x', 'arr'), pair('arr', 'arr'), pair('arr', 'y')].map((one) => winnerBy(passes, one));
  expect(tally([...winners, undefined])).toEqual({ a: 2, b: 1, tie: 1 });
  expect(winRate(tally(winners))).toBe(0.625);
  expect(winRate(tally([]))).toBeUndefined();
});

test('means are over tokens', () => {
  const answers = [answer('', { tokens: 1, logprob: -1, logprobOther: -4 }), answer('', { tokens: 3, logprob: -2, logprobOther: -2 }), answer('')];
  expect(meanLogprob(answers)).toEqual({ own: -1.75, other: -2.5 });
  expect(meanLogprob([])).toEqual({});
});

test('blind order: repeats with its seed, swaps about half', () => {
  expect(swaps(64, 7)).toEqual(swaps(64, 7));
  for (const seed of [0, 1, 7, 123456]) {
    const swapped = swaps(400, seed).filter(Boolean).length;
    expect(swapped).toBeGreaterThan(140);
    expect(swapped).toBeLessThan(260);
  }
});
