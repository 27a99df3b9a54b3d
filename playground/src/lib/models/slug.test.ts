// Ids as the contract has them.
import { expect, test } from 'vitest';
import { copyName, idOf, nameProblem } from './slug';

test('ids', () => {
  expect(idOf('MyCustomModel')).toBe('mycustommodel');
  expect(idOf('  My Model (v1.2)_x ')).toBe('my-model--v1.2-_x');
  expect(idOf('Größe 🐯')).toBe('gr--e--');
  expect(idOf('Nano', ['nano', 'nano-2'])).toBe('nano-3');
});

test('names', () => {
  expect(nameProblem(' ')).toBe('empty');
  expect(nameProblem('a'.repeat(65))).toBe('long');
  expect(nameProblem('🐯'.repeat(64))).toBeUndefined();
  expect(nameProblem('a/b')).toBe('characters');
  expect(nameProblem('a\tb')).toBe('characters');
  expect(nameProblem('Pirate', ['Pirate'])).toBe('taken');
});

test('a free name for a copy', () => {
  expect(copyName('Nano', [])).toBe('Nano copy');
  expect(copyName('Nano', ['nano COPY', 'Nano copy 2'])).toBe('Nano copy 3');
  expect(nameProblem(copyName('x'.repeat(64), []))).toBeUndefined();
});
