import { expect, test, vi } from 'vitest';
import { inSlices } from './slices';

test('steps run in slices until nothing is left, or until it is ended', () => {
  vi.useFakeTimers();
  let time = 0;
  let steps = 0;
  const step = () => {
    time += 3;
    return ++steps < 10;
  };
  inSlices(step, () => time);
  expect(steps).toBe(3);
  vi.advanceTimersToNextTimer();
  expect(steps).toBe(6);
  vi.runAllTimers();
  expect(steps).toBe(10);
  steps = 0;
  const end = inSlices(step, () => time);
  end();
  vi.runAllTimers();
  expect(steps).toBe(3);
  vi.useRealTimers();
});
