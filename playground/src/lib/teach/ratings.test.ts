// Ratings become the rewards that were meant, whichever way they were given.
import { expect, test } from 'vitest';
import { chosen, fold, meanReward, moved, readiness, shuffled, sorted, spaced } from './ratings';
import { answer, group } from './testing';

test('equal texts of one model are one card that keeps every response', () => {
  const cards = fold([answer('A', { responseIds: ['r1'] }), answer('B'), answer('A', { responseIds: ['r2'], cut: true }), answer('A', { model: 'other' })]);
  expect(cards.map((card) => [card.text, card.model, card.responseIds.length, card.cut])).toEqual([
    ['A', 'mine', 2, true],
    ['B', 'mine', 1, false],
    ['A', 'other', 1, false],
  ]);
});

test('what is written by hand is never folded away', () => {
  expect(fold([answer('A'), answer('A', { source: 'mine', responseIds: [] })])).toHaveLength(2);
});

test('places become evenly spaced rewards', () => {
  expect(spaced(5)).toEqual([1, 0.5, 0, -0.5, -1]);
  expect(spaced(4)).toEqual([1, 0.333, -0.333, -1]);
  expect(spaced(1)).toEqual([1]);
});

test('moving a card ranks all, and the order of equal ones stays', () => {
  const cards = [answer('A'), answer('B'), answer('C')];
  const order = moved(cards, 2, 0);
  expect(order.map((card) => [card.text, card.reward])).toEqual([
    ['C', 1],
    ['A', 0],
    ['B', -1],
  ]);
  expect(moved(order, 0, 9).map((card) => card.text)).toEqual(['A', 'B', 'C']);
  expect(sorted([answer('x'), answer('bad', { reward: -1 }), answer('y'), answer('good', { reward: 1 })]).map((card) => card.text)).toEqual([
    'good',
    'x',
    'y',
    'bad',
  ]);
});

test('shuffling keeps every card', () => {
  let at = 0;
  const random = () => [0.9, 0.1, 0.5][at++ % 3] as number;
  expect(shuffled([1, 2, 3, 4], random).sort()).toEqual([1, 2, 3, 4]);
});

test('ready as soon as one rating differs from the rest', () => {
  expect(readiness([]).state).toBe('empty');
  expect(readiness([group(answer('A'), answer('B'))]).state).toBe('unrated');
  expect(readiness([group(answer('A', { reward: 1 }), answer('B', { reward: 1 }))]).state).toBe('equal');
  // What nobody rated counts as 0.
  expect(readiness([group(answer('A', { reward: 1 }), answer('B'))])).toMatchObject({ state: 'ready', rated: 1, of: 2, used: 1 });
  // All six answers were the same text: nothing to prefer.
  expect(readiness([group(answer('A', { reward: 1, responseIds: ['r1', 'r2'] }))]).state).toBe('equal');
});

test('groups that cannot teach are left out and counted', () => {
  const good = group(answer('A', { reward: 1 }), answer('B', { reward: -1 }));
  const equal = group(answer('A', { reward: -1 }), answer('B', { reward: -1 }));
  const untouched = group(answer('A'), answer('B'));
  const single = group(answer('A', { reward: 1 }));
  expect(chosen([good, equal, untouched, single])).toEqual([good, single]);
  expect(readiness([good, equal, untouched, single])).toMatchObject({ state: 'ready', equal: 1, single: 1, used: 2 });
});

test('an empty card of one’s own counts nowhere', () => {
  const own = answer(' ', { source: 'mine', responseIds: [], reward: 1 });
  expect(readiness([group(answer('A', { reward: 0 }), answer('B'), own)]).state).toBe('equal');
  own.text = 'Better';
  expect(readiness([group(answer('A'), own)])).toMatchObject({ state: 'ready', rated: 1, of: 2 });
});

test('the mean reward counts responses, not cards', () => {
  expect(meanReward([group(answer('A', { reward: 1, responseIds: ['r1', 'r2', 'r3'] }), answer('B', { reward: -1 }))])).toBe(0.5);
  expect(meanReward([])).toBe(0);
});
