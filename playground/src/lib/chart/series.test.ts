// What is drawn of a measure.
import { expect, test } from 'vitest';
import { drawnOf, rangeOf } from './series';

test('few points are all drawn, with no smoothed line at weight 0', () => {
  const drawn = drawnOf({ x: [1, 2, 3], y: [5, null, 7] }, 0, false);
  expect(drawn).toEqual({ x: [1, 2, 3], raw: [5, null, 7], smooth: [null, null, null], low: [null, null, null], high: [null, null, null] });
});

test('the smoothed line is made of all points before they are thinned', () => {
  const x = Array.from({ length: 5000 }, (_, at) => at + 1);
  const y = x.map((value) => value % 2);
  const drawn = drawnOf({ x, y, low: y, high: y }, 0.99, false);
  expect(drawn.x.length).toBeLessThanOrEqual(802);
  expect(drawn.x.at(-1)).toBe(5000);
  for (const list of [drawn.raw, drawn.smooth, drawn.low, drawn.high]) expect(list).toHaveLength(drawn.x.length);
  expect(drawn.smooth.at(-1)).toBeCloseTo(0.5, 1);
});

test('a log scale leaves out zero and less', () => {
  expect(drawnOf({ x: [1, 2, 3], y: [0, -1, 2] }, 0, true).raw).toEqual([null, null, 2]);
});

test('ranges have room', () => {
  expect(rangeOf([3])).toEqual([2.5, 3.5]);
  expect(rangeOf([0, 1000])).toEqual([-20, 1020]);
});
