import { expect, test } from 'vitest';
import { groupByDay, marked } from './groups';

const chat = (id: string, when: Date) => ({ id, title: id, model: 'm', created: 0, updated: when.getTime() / 1000, messages: 1, version: 1 });

test('by the reader’s days, newest first', () => {
  const now = new Date(2026, 10, 28, 0, 30);
  const groups = groupByDay([chat('old', new Date(2026, 10, 26, 23, 59)), chat('last night', new Date(2026, 10, 27, 23, 59)), chat('now', now), chat('a bit ago', new Date(2026, 10, 28, 0, 1))], now);
  expect(groups.map((group) => `${group.name}: ${group.chats.map((one) => one.id).join(', ')}`)).toEqual(['today: now, a bit ago', 'yesterday: last night', 'earlier: old']);
});

test('hits are marked as text, not as a pattern', () => {
  expect(marked('What is C++ (c++)?', 'c++')).toEqual(['What is ', 'C++', ' (', 'c++', ')?']);
  expect(marked('a', ' ')).toEqual(['a']);
});
