// Search takes all words in any order; orders are stable and leave the list alone.
import { expect, test } from 'vitest';
import type { ModelInfo } from '../api/types';
import { childrenOf, matching, ordered } from './list';

const model = (name: string, more: Partial<ModelInfo> = {}) => ({ name, id: name.toLowerCase(), description: '', ...more }) as ModelInfo;
const list = [
  model('Pirate 10', { created: 1, revision: 3, parent_model: 'Tiger-Nano' }),
  model('pirate 9', { created: 3, last_modified: 4, description: 'Says arr' }),
  model('Poet', { created: 2, last_modified: 9, size_bytes: 7, parent_model: 'Pirate 10' }),
];
const names = (found: ModelInfo[]) => found.map((one) => one.name);

test('search', () => {
  expect(names(matching(list, 'ARR pirate'))).toEqual(['pirate 9']);
  expect(names(matching(list, ' nano '))).toEqual(['Pirate 10']);
  expect(matching(list, '')).toHaveLength(3);
  expect(matching(list, 'none')).toEqual([]);
});

test('orders', () => {
  expect(names(ordered(list, 'newest'))).toEqual(['pirate 9', 'Poet', 'Pirate 10']);
  expect(names(ordered(list, 'name'))).toEqual(['pirate 9', 'Pirate 10', 'Poet']);
  expect(names(ordered(list, 'trained'))).toEqual(['Poet', 'pirate 9', 'Pirate 10']);
  expect(names(ordered(list, 'revision'))[0]).toBe('Pirate 10');
  expect(names(ordered(list, 'size'))[0]).toBe('Poet');
  expect(names(list)[0]).toBe('Pirate 10');
});

test('children', () => {
  expect(names(childrenOf(list[0]!, list))).toEqual(['Poet']);
});
