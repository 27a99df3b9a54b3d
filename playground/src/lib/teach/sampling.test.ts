// Pieces of several responses find the answer that they belong to.
import { expect, test } from 'vitest';
import type { Chunk, GenerateStop } from '../api/types';
import { blank, take } from './sampling';

test('deltas by index, ids and ends with the stop', () => {
  let id = 0;
  const answers = blank(2, () => `t${id++}`, { model: 'mine', base: 'Tiger-Nano' });
  const chunks = [
    { type: 'info', message: 'Loading' },
    { type: 'delta', delta: 'Pa', index: 1 },
    { type: 'delta', reasoning: 'Hm', index: 0 },
    { type: 'delta', delta: 'ris', index: 1 },
    { type: 'delta', delta: 'lost', index: 7 },
    {
      type: 'stop',
      responses: [
        { index: 0, stop_reason: 'max_tokens', response_id: 'r0' },
        { index: 1, stop_reason: 'end_turn', response_id: 'r1' },
      ],
    },
  ] as Chunk<GenerateStop>[];
  expect(answers.every((one) => !one.done)).toBe(true);
  for (const chunk of chunks) take(answers, chunk);
  expect(answers.map((one) => [one.text, one.reasoning, one.responseIds, one.cut, one.done])).toEqual([
    ['', 'Hm', ['r0'], true, true],
    ['Paris', '', ['r1'], false, true],
  ]);
});
