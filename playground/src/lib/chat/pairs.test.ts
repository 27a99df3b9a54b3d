import { expect, test } from 'vitest';
import type { ModelInfo } from '../api/types';
import { partnerOf } from './pairs';

const model = (id: string, base: string, more: Partial<ModelInfo> = {}): ModelInfo => ({
  id,
  name: id.toUpperCase(),
  description: '',
  read_only: id === base,
  base_model: base.toUpperCase(),
  temperature: 1,
  top_p: 1,
  status: 'ready',
  ...more,
});

const all = [model('nano', 'nano'), model('big', 'big', { status: 'not_downloaded' }), model('new', 'nano'), model('old', 'nano')];
const partner = (id: string, ...used: string[]) => partnerOf(all.find((one) => one.id === id), all, new Set([id, ...used]))?.id;

test('base and mine are the pair', () => {
  expect(partner('old')).toBe('nano');
  expect(partner('nano')).toBe('new');
  expect(partner('nano', 'new')).toBe('old');
  expect(partner('old', 'nano')).toBe('new');
});

test('what is not downloaded is no partner', () => {
  expect(partner('nano', 'new', 'old')).toBeUndefined();
  expect(partner('big')).toBe('new');
});
