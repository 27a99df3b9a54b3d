// Rules rate as the built-in model's own description of its styles does.
import { expect, test } from 'vitest';
import { answer, group } from './testing';
import { applyRule, judge, patternError, shareOf, styleOf, words } from './rules';

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
  expect(judge({ kind: 'shorter' })).toBeUndefined();
});

test('all cards of the model are rated, one’s own keep theirs', () => {
  const own = answer('Mine', { source: 'mine', responseIds: [], reward: 0.5 });
  const one = group(answer('Arr, me!'), answer('No.', { reward: 1 }), own);
  applyRule({ kind: 'style', style: 'pirate' }, [one]);
  expect(one.answers.map((card) => card.reward)).toEqual([1, 0, 0.5]);
});

test('the shorter the better, equal lengths alike', () => {
  const one = group(answer('four'), answer('a longer one'), answer('five'), answer('of eight'));
  applyRule({ kind: 'shorter' }, [one]);
  expect(one.answers.map((card) => card.reward)).toEqual([1, -1, 1, 0]);
});

test('shares count each time an answer was given', () => {
  const groups = [group(answer('Arr, me!', { responseIds: ['r1', 'r2', 'r3'] }), answer('No.')), group(answer('Yes.'))];
  expect(shareOf({ kind: 'style', style: 'pirate' }, groups)).toEqual({ fit: 3, of: 5 });
  expect(shareOf({ kind: 'shorter' }, groups)).toBeUndefined();
  expect(shareOf(undefined, groups)).toBeUndefined();
});

test('words', () => {
  expect(words('  one two\nthree ')).toBe(3);
  expect(words('')).toBe(0);
});
