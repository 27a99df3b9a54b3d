import { expect, test } from 'vitest';
import type { ChatDocument } from '../api/types';
import { fileName, toMarkdown } from './export';

const say = { you: 'You', system: 'System prompt', noAnswer: 'no answer' };
const chat: ChatDocument = {
  title: 'Capitals',
  model: 'm',
  system: 'Be brief.',
  settings: {},
  nodes: [
    { id: '1', role: 'user', content: 'France?', created: 0 },
    { id: '2', parent: '1', role: 'assistant', content: 'Paris', model: 'm', revision: 2, created: 0 },
    { id: '3', parent: '1', role: 'assistant', content: 'Rome', model: 'n', created: 0 },
  ],
  leaf: '2',
};

test('Markdown has the shown path', () => {
  expect(toMarkdown(chat, say)).toBe('# Capitals\n\n## System prompt\n\nBe brief.\n\n## You\n\nFrance?\n\n## m (r2)\n\nParis\n');
  expect(toMarkdown({ ...chat, leaf: '1' }, say)).toContain('## m (r2)\n\nParis\n\n## n\n\nRome');
});

test('file names are safe', () => {
  expect(fileName('What is 7 + 5?', 'md')).toBe('What-is-7-5.md');
  expect(fileName('../../etc', 'json')).toBe('etc.json');
  expect(fileName('???', 'json')).toBe('chat.json');
});
