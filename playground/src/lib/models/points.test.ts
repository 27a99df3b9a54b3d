// Revisions as numbers, and numbers as CSV and pages.
import { expect, test } from 'vitest';
import type { RevisionInfo } from '../api/types';
import { csvOf, pageOf, pointsOf, trained, warningOf } from './points';

const revisions: RevisionInfo[] = [
  { revision: 2, created: 30, rolled_back_to: 0, available: true },
  {
    revision: 1,
    created: 20,
    train_id: 'train_1',
    available: true,
    metrics: { loss: 2.5, kl_parent: 0, grad_norm: 0.9, entropy: Number.NaN, reward: { mean: 0.5, std: 0.5, min: 0, max: 1 }, trained_tokens: 10 },
  },
  { revision: 0, created: 10, available: true },
];

test('oldest first, gaps where nothing was trained', () => {
  const points = pointsOf(revisions);
  expect(points.map((point) => point.revision)).toEqual([0, 1, 2]);
  expect(points[0]!.loss).toBeNull();
  expect(points[1]).toMatchObject({ reward: 0.5, rewardMin: 0, rewardMax: 1, kl: 0, grad: 0.9, entropy: null, tokens: 10, trainId: 'train_1' });
  expect(points[2]!.rolledBackTo).toBe(0);
  expect(trained(points).map((point) => point.revision)).toEqual([1]);
});

test('CSV has a header, a line a revision, zeros as zeros and gaps as nothing', () => {
  const lines = csvOf(pointsOf(revisions)).split('\r\n');
  expect(lines).toHaveLength(5);
  expect(lines[0]).toMatch(/^revision,time,train_id,rolled_back_to,reward_mean,/);
  expect(lines[1]).toBe('0,1970-01-01T00:00:10.000Z,,,,,,,,,,,');
  expect(lines[2]).toBe('1,1970-01-01T00:00:20.000Z,train_1,,0.5,0,1,2.5,0,0.9,,,10');
  expect(lines[3]).toContain(',0,,,,');
  expect(csvOf(pointsOf([{ revision: 1, created: 0, train_id: 'a"b,c', available: true }]))).toContain('"a""b,c"');
});

test('pages', () => {
  const rows = Array.from({ length: 45 }, (_, at) => at);
  expect(pageOf(rows, 1, 20)).toEqual({ rows: rows.slice(20, 40), page: 1, pages: 3 });
  expect(pageOf(rows, 9, 20)).toMatchObject({ rows: [40, 41, 42, 43, 44], page: 2 });
  expect(pageOf([], 3, 20)).toEqual({ rows: [], page: 0, pages: 1 });
});

test('warnings', () => {
  expect(warningOf('moved_far: this call: far')).toEqual({ name: 'moved_far', text: 'this call: far' });
  expect(warningOf('odd')).toEqual({ name: 'odd', text: 'odd' });
});
