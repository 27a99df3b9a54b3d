// The average begins at the first value, skips gaps and comes nearer to a level the longer it lasts.
import { expect, test } from 'vitest';
import { smooth } from './smooth';

test('weight 0 changes nothing', () => {
  expect(smooth([1, null, 3], 0)).toEqual([1, null, 3]);
});

test('a constant stays what it is from the first value on', () => {
  for (const value of smooth([4, 4, 4, 4], 0.9)) expect(value).toBeCloseTo(4, 12);
});

test('two values by hand', () => {
  const [first, second] = smooth([1, 3], 0.5);
  expect(first).toBe(1);
  // (0.5·0.5·1 + 0.5·3) / (0.5·0.5 + 0.5)
  expect(second).toBeCloseTo(1.75 / 0.75, 12);
});

test('gaps stay and do not count', () => {
  const with_gap = smooth([1, null, 3, Number.NaN], 0.5);
  expect(with_gap[1]).toBeNull();
  expect(with_gap[3]).toBeNull();
  expect(with_gap[2]).toBe(smooth([1, 3], 0.5)[1]);
});
