import { expect, test } from 'vitest';
import { codePieces, draw, tablePieces } from './draw';
import { render, type Words } from './render';

const say: Words = { code: 'Code', copy: 'Copy', table: 'Table', image: (alt) => alt };
const head = '| a | b |\n|---|--:|\n';
const rows = Array.from({ length: 40 }, (_, at) => `| ${at} | **${at}** |\n`);

test('a growing table ends as it would be drawn at once', () => {
  const text = head + rows.join('');
  const node = document.createElement('div');
  let first: Element | null = null;
  for (let cut = 1; cut <= text.length; cut = cut === text.length ? cut + 1 : Math.min(cut + 11, text.length)) {
    draw(node, { text: text.slice(0, cut), after: 2 }, say);
    if (cut > head.length + 20) expect(node.querySelector('tbody tr')).toBe((first ??= node.querySelector('tbody tr')));
  }
  const whole = document.createElement('div');
  whole.append(render(text, 2, say));
  const cells = (one: Element) => [...one.querySelectorAll('tr')].map((row) => row.innerHTML);
  expect(cells(node)).toEqual(cells(whole));
  expect(node.querySelectorAll('table').length).toBe(1);
  // What is no long table any more is drawn as what it is.
  draw(node, { text: 'Only text', after: 2 }, say);
  expect(node.innerHTML.trim()).toBe('<p>Only text</p>');
  draw(node, { text, after: 2 }, say);
  expect(cells(node)).toEqual(cells(whole));
});

test('only long and plain tables are taken apart', () => {
  expect(tablePieces(head + rows.slice(0, 10).join(''))).toBeUndefined();
  expect(tablePieces(head + rows.join(''))?.length).toBe(3);
  expect(tablePieces(`${head}${rows.join('')}lazy\n`)).toBeUndefined();
  expect(tablePieces(`${rows.join('')}`)).toBeUndefined();
});

test('growing code ends as it would be drawn at once, of text alone', () => {
  const text = `\`\`\`js\n${Array.from({ length: 120 }, (_, at) => `const a${at} = '<b>${at}</b>';\n${at % 5 ? '' : '\n'}`).join('')}\`\`\``;
  const node = document.createElement('div');
  let pre: Element | null = null;
  for (let cut = 7; cut <= text.length; cut = cut === text.length ? cut + 1 : Math.min(cut + 13, text.length)) {
    draw(node, { text: text.slice(0, cut), after: 2 }, say);
    expect(node.querySelector('pre')).toBe((pre ??= node.querySelector('pre')));
  }
  const whole = document.createElement('div');
  whole.append(render(text, 2, say));
  expect(node.textContent).toBe(whole.textContent);
  expect(node.querySelector('b')).toBeNull();
  expect(node.querySelectorAll('.code-lines').length).toBeGreaterThan(3);
  expect([...node.querySelectorAll('.code-lines')].every((one) => one.childNodes.length === 1)).toBe(true);
  expect(codePieces(`${text}\n\nmore`)).toBeUndefined();
  expect(codePieces(text.slice(0, 600))).toBeUndefined();
});

test('a piece of an ordered list begins with its number', () => {
  const node = document.createElement('div');
  draw(node, { text: '1. a\n1. b\n', after: 2, joins: { kind: 'list', start: 17 } }, say);
  expect(node.querySelector('ol')?.start).toBe(17);
});
