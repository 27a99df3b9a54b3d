// Changes and comparisons in numbers and words.
import { expect, test } from 'vitest';
import type { EvaluateResponse, TrainResponse } from '../api/types';
import { changesOf, compare, likelihood, slant, tally, warningOf } from './outcome';
import { countOf } from './rules';

test('the first response of a card says its change; without an evaluation there is none', () => {
  const responses = [
    { logprob_before: -2, logprob_after: -1 },
    { logprob_before: -2, logprob_after: -1 },
    { logprob_before: -3, logprob_after: -4 },
    { logprob_before: -3 },
  ];
  expect(changesOf(['a', 'a', 'b', 'c'], { responses } as unknown as TrainResponse)).toEqual({ a: { before: -2, after: -1 }, b: { before: -3, after: -4 } });
});

test('how many times as likely', () => {
  expect(likelihood({ before: -2, after: -2 + Math.log(3.2) })).toEqual({ kind: 'more', factor: '3.2' });
  expect(likelihood({ before: -2, after: -2 - Math.log(12.4) })).toEqual({ kind: 'less', factor: '12' });
  expect(likelihood({ before: -2, after: -1.95 })).toEqual({ kind: 'more', factor: '1.05' });
  expect(likelihood({ before: -2, after: -2.01 }).kind).toBe('same');
  expect(likelihood({ before: -20, after: -1 }).factor).toBe('>1000');
});

test('the slant is the same for equal factors, and bounded', () => {
  expect(slant({ before: -2, after: -1 })).toBeCloseTo(-slant({ before: -1, after: -2 }));
  expect(slant({ before: -50, after: -1 })).toBeLessThanOrEqual(1);
  expect(slant({ before: -2, after: Number.NEGATIVE_INFINITY })).toBe(0);
});

test('warnings have a name and a text', () => {
  expect(warningOf('moved_far: this call moved it')).toEqual({ name: 'moved_far', text: 'this call moved it' });
  expect(warningOf('Something else')).toEqual({ name: '', text: 'Something else' });
});

test('both sides are counted by the rule', () => {
  const side = (...texts: string[]) => texts.map((content) => ({ content }));
  const evaluated = {
    revision: 4,
    results: [
      { answers: { model: side('Arr, me!', 'Arr, yes'), against: side('No.', 'Arr, me!') } },
      { answers: { model: side('Arr, me!', 'No way.'), against: side('No.', 'One two three') } },
    ],
  } as unknown as EvaluateResponse;
  const found = compare(evaluated, ['Why?', 'How?'], 2);
  expect(found).toMatchObject({ from: 2, to: 4, wordsBefore: 1.75, wordsAfter: 2 });
  const after = found.prompts.flatMap((prompt) => prompt.after);
  expect(countOf({ kind: 'style', style: 'pirate' }, after)).toEqual({ fit: 3, of: 4 });
  expect(countOf(undefined, after)).toBeUndefined();
  expect(found.prompts[1]).toEqual({ prompt: 'How?', before: ['No.', 'One two three'], after: ['Arr, me!', 'No way.'] });
});

test('equal texts once, the most frequent first', () => {
  expect(tally(['b', 'a', 'a'])).toEqual([
    { text: 'a', times: 2 },
    { text: 'b', times: 1 },
  ]);
});
