// Long series lose points, never their ends, spikes or marked points.
import { expect, test } from 'vitest';
import { decimate, nearest } from './decimate';

test('short series are kept whole', () => {
  expect(decimate([1, null, 3], 10)).toEqual([0, 1, 2]);
});

test('5,000 points become at most two a bucket, with ends, spikes and marks', () => {
  const values = Array.from({ length: 5000 }, (_, at) => Math.sin(at / 50));
  values[1234] = 99;
  values[4321] = -99;
  const kept = decimate(values, 400, [777, 9999]);
  expect(kept.length).toBeLessThanOrEqual(803);
  expect(kept).toEqual([...kept].sort((a, b) => a - b));
  for (const at of [0, 4999, 1234, 4321, 777]) expect(kept).toContain(at);
  expect(kept).not.toContain(9999);
});

test('gaps alone keep the ends', () => {
  expect(decimate(new Array<null>(100).fill(null), 5)).toEqual([0, 99]);
});

test('the nearest of an ascending array', () => {
  const at = [1, 2, 4, 8];
  expect(nearest([], 3)).toBe(-1);
  expect(nearest(at, -5)).toBe(0);
  expect(nearest(at, 3)).toBe(1);
  expect(nearest(at, 3.1)).toBe(2);
  expect(nearest(at, 100)).toBe(3);
});
