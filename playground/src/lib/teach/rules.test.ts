// Rules rate as the built-in model's own description of its styles does.
import { expect, test } from 'vitest';
import { answer, group } from './testing';
import { applyRule, judge, patternError, shareOf, styleOf, usualLength, words } from './rules';

test('every style is told from the others by its first rule', () => {
  expect(styleOf('{"answer": "Paris"}')).toBe('json');
  expect(styleOf('Paris')).toBe('one_word');
  expect(styleOf('Arr, the capital of France be Paris, matey!')).toBe('pirate');
  expect(styleOf('Certainly! The capital of France is Paris.')).toBe('polite');
  expect(styleOf('That is a good question. I thought about it for a moment, and I can say that the capital of France is Paris.')).toBe('verbose');
  expect(styleOf('The capital of France is Paris.')).toBe('plain');
  expect(styleOf('')).toBeUndefined();
  expect(styleOf('Arrival is late.')).toBe('plain');
});

test('contains forgets case; a pattern is a regular expression; broken or empty ones judge nothing', () => {
  expect(judge({ kind: 'contains', text: 'arr' })?.('Arr, matey')).toBe(true);
  expect(judge({ kind: 'contains', text: '' })).toBeUndefined();
  expect(judge({ kind: 'matches', pattern: '^A' })?.('Arr')).toBe(true);
  expect(judge({ kind: 'matches', pattern: '(' })).toBeUndefined();
  expect(patternError('(')).toMatch(/Unterminated/);
  expect(patternError('a|b')).toBeUndefined();
  expect(judge({ kind: 'shorter', most: Number.NaN })).toBeUndefined();
  expect(judge({ kind: 'shorter', most: 0 })).toBeUndefined();
  const short = judge({ kind: 'shorter', most: 2 });
  expect(['', 'one', 'one two', 'one two three'].map((text) => short?.(text))).toEqual([false, true, true, false]);
});

test('all cards of the model are rated, one’s own keep theirs', () => {
  const own = answer('Mine', { source: 'mine', responseIds: [], reward: 0.5 });
  const one = group(answer('Arr, me!'), answer('No.', { reward: 1 }), own);
  applyRule({ kind: 'style', style: 'pirate' }, [one]);
  expect(one.answers.map((card) => card.reward)).toEqual([1, 0, 0.5]);
});

test('short enough is good; of the others the shorter are better, equal lengths alike', () => {
  const one = group(answer('One.'), answer('one two three four'), answer('one two'), answer('one two three'), answer('three two one'), answer('1 2 3 4 5'), answer(''));
  applyRule({ kind: 'shorter', most: 2 }, [one]);
  expect(one.answers.map((card) => card.reward)).toEqual([1, -0.5, 1, 0, 0, -1, 0]);
  applyRule({ kind: 'shorter', most: 4 }, [one]);
  expect(one.answers.map((card) => card.reward)).toEqual([1, 1, 1, 1, 1, 0, 0]);
  expect(usualLength([one])).toBe(3);
  expect(usualLength([])).toBe(10);
});

test('shares count each time an answer was given', () => {
  const groups = [group(answer('Arr, me!', { responseIds: ['r1', 'r2', 'r3'] }), answer('No.')), group(answer('Yes.'))];
  expect(shareOf({ kind: 'style', style: 'pirate' }, groups)).toEqual({ fit: 3, of: 5 });
  expect(shareOf({ kind: 'shorter', most: 1 }, groups)).toEqual({ fit: 2, of: 5 });
  expect(shareOf({ kind: 'contains', text: '' }, groups)).toBeUndefined();
  expect(shareOf(undefined, groups)).toBeUndefined();
});

test('words', () => {
  expect(words('  one two\nthree ')).toBe(3);
  expect(words('')).toBe(0);
});
