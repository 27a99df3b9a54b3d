import { expect, test } from 'vitest';
import { draw, tablePieces } from './draw';
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
