import { expect, test } from 'vitest';
import type { ChatNode } from '../api/types';
import { comparison, deepest, descendants, familiesOf, pathTo, remember, remove, type Seen, siblings, step } from './tree';

const node = (id: string, parent?: string, model?: string): ChatNode => ({
  id,
  parent,
  role: id.startsWith('u') ? 'user' : 'assistant',
  content: id,
  model: id.startsWith('u') ? undefined : (model ?? 'm'),
  created: 0,
});

// u1 ─ a1 ─ u2 ─ a2
//    │    └ u3 ─ a3
//    └ a4
const nodes = [node('u1'), node('a1', 'u1'), node('u2', 'a1'), node('a2', 'u2'), node('u3', 'a1'), node('a3', 'u3'), node('a4', 'u1')];
const ids = (list: readonly ChatNode[]) => list.map((one) => one.id).join(' ');

test('the path runs from the root to the leaf', () => {
  expect(ids(pathTo(nodes, 'a3'))).toBe('u1 a1 u3 a3');
  expect(pathTo(nodes, undefined)).toEqual([]);
  expect(pathTo(nodes, 'nobody')).toEqual([]);
});

test('siblings are the alternatives of one place', () => {
  expect(ids(siblings(nodes, 'u3'))).toBe('u2 u3');
  expect(ids(siblings(nodes, 'a1'))).toBe('a1 a4');
  expect(ids(siblings(nodes, 'u1'))).toBe('u1');
  const families = familiesOf(nodes);
  for (const one of nodes) expect(families(one)).toEqual(siblings(nodes, one.id));
});

test('a branch comes back as it was left', () => {
  const seen: Seen = new Map();
  remember(nodes, 'a2', seen);
  expect(step(nodes, 'a1', 1, seen)).toBe('a4');
  remember(nodes, 'a4', seen);
  expect(step(nodes, 'a4', -1, seen)).toBe('a2');
  expect(step(nodes, 'a4', 1, seen)).toBeUndefined();
  // Never seen: the newest leads.
  expect(deepest(nodes, 'a1', new Map())).toBe('a3');
});

test('deleting shows the neighbour, else the parent', () => {
  const seen: Seen = new Map();
  remember(nodes, 'a3', seen);
  const first = remove(nodes, 'u3', 'a3', seen);
  expect(ids(first.nodes)).toBe('u1 a1 u2 a2 a4');
  expect(first.leaf).toBe('a2');
  const second = remove(first.nodes, 'a2', 'a2', seen);
  expect(second.leaf).toBe('u2');
  const elsewhere = remove(nodes, 'a4', 'a3', seen);
  expect(elsewhere.leaf).toBe('a3');
  expect(remove(nodes, 'u1', 'a3', seen)).toEqual({ nodes: [], leaf: undefined });
  expect([...descendants(nodes, 'u3')]).toEqual(['u3', 'a3']);
});

test('answers of several models to the last message are compared until one is chosen', () => {
  const both = [node('u1'), node('a1', 'u1', 'base'), node('a2', 'u1', 'mine'), node('a3', 'u1', 'base')];
  expect(comparison(both, 'u1')?.map((column) => `${column.model}: ${ids(column.answers)}`)).toEqual(['base: a1 a3', 'mine: a2']);
  expect(comparison(both, 'a2')).toBeUndefined();
  expect(comparison([node('u1'), node('a1', 'u1'), node('a2', 'u1')], 'u1')).toBeUndefined();
  // Not chosen: going down stops at the question.
  expect(deepest(both, 'u1', new Map())).toBe('u1');
  const seen: Seen = new Map();
  remember(both, 'a2', seen);
  expect(deepest(both, 'u1', seen)).toBe('a2');
});
