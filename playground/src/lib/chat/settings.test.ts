import { expect, test } from 'vitest';
import { countSet, formatStops, parseNumber, parseStops } from './settings';

test.each([
  ['temperature', '0', 0],
  ['temperature', ' 0,7 ', 0.7],
  ['top_p', '1', 1],
  ['top_k', '40', 40],
  ['seed', '0', 0],
  ['max_tokens', '1e3', 1000],
] as const)('%s takes %j', (name, text, value) => expect(parseNumber(name, text)).toEqual({ value }));

test.each([
  ['temperature', '2.1', 'range'],
  ['temperature', '-1', 'range'],
  ['temperature', 'warm', 'number'],
  ['temperature', '0x1', 'number'],
  ['temperature', 'Infinity', 'number'],
  ['top_p', '0', 'range'],
  ['top_k', '1.5', 'whole'],
  ['top_k', '0', 'range'],
  ['max_tokens', '0', 'range'],
  ['seed', '9007199254740993', 'range'],
] as const)('%s refuses %j', (name, text, kind) => expect(parseNumber(name, text).problem?.kind).toBe(kind));

test('empty is the model’s own', () => expect(parseNumber('top_p', '  ')).toEqual({}));

test('stop strings come back as they were', () => {
  const stops = ['END', '\n\n', 'a\\nb', '\t'];
  expect(parseStops(formatStops(stops)).value).toEqual(stops);
  expect(parseStops('')).toEqual({});
  expect(parseStops('1\n2\n3\n4\n5').problem?.kind).toBe('stops');
  expect(parseStops('x'.repeat(5000)).problem?.kind).toBe('stops');
});

test('counting what was set', () => {
  expect(countSet({}, ' ')).toBe(0);
  expect(countSet({ temperature: 0, stop: [], seed: undefined }, 'Be brief.')).toBe(2);
});
