import { describe, expect, it } from 'vitest';
import type { UsageRow } from '../api/types';
import { byDay, csv, groups, ticks, total } from './usage';

const NOW = Date.UTC(2026, 10, 28, 12);
const row = (part: Partial<UsageRow>): UsageRow => ({
  day: '2026-11-28',
  model: 'tiger-nano',
  kind: 'generate',
  requests: 1,
  input_tokens: 10,
  output_tokens: 5,
  trained_tokens: 0,
  duration: 0.5,
  ...part,
});
const ROWS = [
  row({ requests: 3 }),
  row({ kind: 'train', trained_tokens: 40, output_tokens: 0, model: 'pirate', requests: 2 }),
  row({ day: '2026-11-26', key: 'key_1', key_name: 'laptop' }),
];

it('sums everything', () => {
  expect(total(ROWS)).toEqual({ requests: 6, trainings: 2, input: 30, output: 10, trained: 40, duration: 1.5 });
});

it('groups, most requests first', () => {
  const models = groups(ROWS, ({ model }) => ({ id: model, name: model }));
  expect(models.map(({ id, requests }) => [id, requests])).toEqual([
    ['tiger-nano', 4],
    ['pirate', 2],
  ]);
  const keys = groups(ROWS, ({ key, key_name }) => ({ id: key ?? '', name: key_name ?? 'Playground' }));
  expect(keys.map(({ name }) => name)).toEqual(['Playground', 'laptop']);
});

describe('byDay', () => {
  it('has every day once, oldest first', () => {
    const days = byDay(ROWS, 'tokens', 3, NOW);
    expect(days.map((day) => [day.day, day.parts, day.total])).toEqual([
      ['2026-11-26', [10, 5, 0], 15],
      ['2026-11-27', [0, 0, 0], 0],
      ['2026-11-28', [20, 5, 40], 65],
    ]);
  });

  it('stacks requests and time by kind', () => {
    expect(byDay(ROWS, 'requests', 1, NOW)[0]?.parts).toEqual([3, 2, 0]);
    expect(byDay(ROWS, 'time', 1, NOW)[0]?.parts).toEqual([0.5, 0.5, 0]);
  });
});

it.each([
  [0, true, [0, 1]],
  [1, true, [0, 1]],
  [7, true, [0, 2, 4, 6, 8]],
  [65, true, [0, 20, 40, 60, 80]],
  [100_000, true, [0, 25_000, 50_000, 75_000, 100_000]],
  [0.3, false, [0, 0.1, 0.2, 0.30000000000000004]],
])('ticks for %d', (max, whole, expected) => {
  expect(ticks(max, whole)).toEqual(expected);
});

it('writes CSV that is no formula', () => {
  const text = csv([row({ key: 'key_1', key_name: '=HYPERLINK("x"),a' })]);
  expect(text.split('\r\n')[1]).toBe(`2026-11-28,key_1,"'=HYPERLINK(""x""),a",tiger-nano,generate,1,10,5,0,0.5`);
});
