// Sizes of adapters as the server has them.
import { expect, test } from 'vitest';
import type { ModelInfo } from '../api/types';
import { adapterBytes } from './size';

const base = { name: 'Nano', base_model: 'Nano', read_only: true, parameters: 3_475_712 } as ModelInfo;

test('the built-in model at rank 16, within a header', () => {
  expect(adapterBytes(base, 16, [])).toBeCloseTo(1_196_032, -1);
});

test('8 B parameters at rank 16: 168 MB', () => {
  expect(adapterBytes({ ...base, parameters: 8_030_261_248 }, 16, [])! / 1e6).toBeCloseTo(167.8, 0);
});

test('a copy that is there tells the true size', () => {
  const own = { ...base, read_only: false, rank: 8, size_bytes: 800 };
  expect(adapterBytes(base, 4, [base, own])).toBe(400);
  expect(adapterBytes(base, 4, [{ ...own, base_model: 'Other' }])).not.toBe(400);
});

test('unknown stays unknown', () => {
  expect(adapterBytes({ ...base, parameters: undefined }, 16, [])).toBeUndefined();
});
