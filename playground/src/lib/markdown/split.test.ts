import { Marked } from 'marked';
import { expect, test } from 'vitest';
import { headingLevel, Splitter } from './split';

const TEXTS = {
  paragraphs: 'One line\nand its second.\n\nAnother, with *stress*.\n\n\nLast',
  headings: '# One\n\nText\n## Two\nText\n\nSetext\n===\n\nUnder\n---\nEnd',
  fences: 'Before\n```js\nconst a = 1;\n\n# not a heading\n- not a list\n```\nAfter\n\n~~~\n```\nstill code\n~~~\n\nDone\n\n````md\n```\ninside\n```\n````\nEnd',
  openFence: 'Look:\n\n```python\ndef f():\n    return 1\n\n\nprint(f())',
  lists: '- a\n- b\n\n- c after a gap\n  continued\n\n  a paragraph of c\n\nText\n\n1. one\n2. two\n   - deep\n   - deeper\n\n     text\n\n3. three\n\n10. ten\n\nAfter\n\n* other\n+ another',
  tables: 'Before:\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n| 3 | `x|y` |\n\nAfter\n| c |\n|---|\n| 4 |\nlazy\n\nEnd',
  html: '<div>\n<b>bold</b>\n\ntext</div>\n\n<!-- a\n\ncomment -->\n\n<script>\nalert(1)\n\n</script>\nAfter <i>in</i> line\n\n<details>\n<summary>x</summary>\n\ny\n\n</details>',
  quotes: '> one\n> two\n\n> three\nlazy\n\n> - list\n>   in a quote\n\nEnd',
  code: '    indented\n\n    more\n\ntext\n\tnot code',
  rules: 'a\n\n---\n\nb\n***\nc\n\n- - -\n\nd',
  windows: 'One\r\n\r\n- a\r\n- b\r\n\r\nTwo\r\n',
  oddities: '\n\n  \nText\\\nbreak  \nagain\n\n[x]: http://example.org\n\n1) a\n2) b\n\n1. c\n\n-\n-\n\n\u00a0\n🐯 tiger\n\n中文。\n\n- [ ] todo\n- [x] done',
};

const marked = new Marked();
const html = (text: string) => marked.parse(text) as string;

test.each(Object.entries(TEXTS))('%s: the blocks are the same wherever the stream is cut', (_, text) => {
  const whole = new Splitter();
  const expected = whole.push(text);
  for (let cut = 0; cut <= text.length; cut++) {
    const cutOnce = new Splitter();
    const before = [...(cutOnce.push(text.slice(0, cut)), cutOnce.done)];
    const after = cutOnce.push(text);
    // What was finished stays as it was, and is what the whole text has there.
    expect(after.slice(0, before.length)).toEqual(before);
    expect(after.map((block) => html(block.text)).join('')).toBe(expected.map((block) => html(block.text)).join(''));
  }
});

test.each(Object.entries(TEXTS))('%s: character by character it is the whole text in the end', (_, text) => {
  const growing = new Splitter();
  let finished = 0;
  for (let cut = 1; cut <= text.length; cut++) {
    growing.push(text.slice(0, cut));
    expect(growing.done.length).toBeGreaterThanOrEqual(finished);
    finished = growing.done.length;
  }
  const joined = growing.push(text).map((block) => html(block.text)).join('');
  expect(joined).toBe(html(text));
});

test('long texts are mostly finished: the end alone grows', () => {
  const text = 'A paragraph of some words.\n\n'.repeat(200);
  const growing = new Splitter();
  for (let cut = 0; cut <= text.length; cut += 7) growing.push(text.slice(0, cut));
  expect(growing.done.length).toBeGreaterThan(190);
  expect(growing.push(`${text}And a b`).at(-1)!.text).toBe('And a b');
});

test('a text that was changed is split anew', () => {
  const growing = new Splitter();
  growing.push('One\n\nTwo\n\nThree');
  expect(growing.push('Other\n\nText\n').map((block) => block.text.trim())).toEqual(['Other', 'Text']);
});

test('headings leave no level out', () => {
  expect(headingLevel(3, 2)).toBe(3);
  expect(headingLevel(2, 3)).toBe(4);
  expect(headingLevel(1, 5)).toBe(3);
  expect(headingLevel(6, 6)).toBe(6);
  const blocks = new Splitter().push('### A\n\ntext\n\n### B\n\n#### C\n\nend\n');
  expect(blocks.map((block) => block.after)).toEqual([2, 3, 3, 4, 5]);
});

const item = (at: number) => `${at % 7 ? '' : '\n'}${at + 3}. item **${at}** of some words${at % 3 ? '' : '\n    - deep\n\n      more'}\n`;
const quoted = (at: number) => `> Words of ${at}, *said* again and again.${at % 2 ? '\n>' : '\n> - and a list\n> - of two\n>'}\n`;
const LONG: Record<string, [string, string]> = {
  'ordered list': [`${Array.from({ length: 90 }, (_, at) => item(at)).join('')}\nThe end.\n`, 'ol > li'],
  list: [`Before\n\n${Array.from({ length: 200 }, (_, at) => `- item ${at} of words\n`).join('')}`, 'ul > li'],
  quote: [`${Array.from({ length: 80 }, (_, at) => quoted(at)).join('')}\nThe end.\n`, 'blockquote > *'],
};

test.each(Object.entries(LONG))('a long %s is cut into pieces that together are the whole', (_, [text, parts]) => {
  const elements = (source: string) => {
    const root = document.createElement('div');
    root.innerHTML = html(source);
    return [...root.querySelectorAll(parts)].map((one) => one.textContent?.replace(/\s+/g, ' ').trim());
  };
  const expected = new Splitter().push(text);
  expect(Math.max(...expected.map((block) => block.text.length))).toBeLessThan(1600);
  expect(expected.map((block) => block.text).join('').replaceAll('\n', '')).toBe(text.replaceAll('\n', ''));
  expect(expected.flatMap((block) => elements(block.text))).toEqual(elements(text));
  const growing = new Splitter();
  for (let cut = 0; cut < text.length; cut += 5) {
    growing.push(text.slice(0, cut));
    expect(growing.done).toEqual(expected.slice(0, growing.done.length));
  }
  expect(growing.done.length).toBeGreaterThanOrEqual(expected.length - 2);
  expect(growing.push(text)).toEqual(expected);
  // An ordered list goes on counting.
  let number = 3;
  for (const block of expected.filter((one) => /^\d/.test(one.text))) {
    expect(block.joins?.start ?? 3).toBe(number);
    number += elements(block.text).length;
  }
});
