import { expect, test } from 'vitest';
import type { ChatNode } from '../api/types';
import { messagesOf, requestOf, speed, titleOf, words } from './request';

const node = (role: 'user' | 'assistant', content: string): ChatNode => ({ id: content, role, content, created: 0 });

test('messages take turns, also after an answer that failed', () => {
  const path = [node('user', 'Hello'), node('assistant', ''), node('user', 'Anybody?'), node('assistant', 'Yes')];
  expect(messagesOf('', path)).toEqual([
    { role: 'user', content: 'Hello\n\nAnybody?' },
    { role: 'assistant', content: 'Yes' },
  ]);
  expect(messagesOf(' Be brief. ', path)[0]).toEqual({ role: 'system', content: ' Be brief. ' });
});

test('only what was set is sent', () => {
  const request = requestOf('m', '', { temperature: 0, top_p: undefined, stop: [] }, [node('user', 'a')]);
  expect(request).toEqual({ model: 'm', messages: [{ role: 'user', content: 'a' }], temperature: 0 });
});

test('titles are the first words', () => {
  expect(titleOf('  What is\nthis? ')).toBe('What is this?');
  const long = titleOf('A question that goes on and on, with many words in it, far beyond what a list can show');
  expect(long).toBe('A question that goes on and on, with many words in it, far…');
  expect(titleOf('x'.repeat(90))).toBe(`${'x'.repeat(60)}…`);
});

test('speed leaves the wait out where it can', () => {
  const usage = { duration: 3, input_tokens: 1, cached_tokens: 0, output_tokens: 21 };
  expect(speed({ usage, first_token_s: 1 })).toBe(10);
  // Measured over the network, the wait may seem longer than the whole.
  expect(speed({ usage: { ...usage, duration: 0.5 }, first_token_s: 0.6 })).toBe(42);
  expect(speed({})).toBeUndefined();
});

test('words', () => expect(words(' one  two\nthree ')).toBe(3));
