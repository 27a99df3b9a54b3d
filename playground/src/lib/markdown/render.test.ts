import { expect, test } from 'vitest';
import { CORPUS } from './corpus';
import { render, type Words } from './render';
import { sync } from './sync';

const say: Words = { code: 'Code', copy: 'Copy', table: 'Table', image: (alt) => `Image: ${alt}` };

function drawn(text: string): HTMLElement {
  const root = document.createElement('div');
  root.append(render(text, 2, say));
  return root;
}


test.each(CORPUS)('harmless: %j', (text) => {
  const root = drawn(text);
  const tags = new Set('a p br h3 h4 h5 h6 ul ol li blockquote pre code em strong del hr table thead tbody tr th td div span button'.split(' '));
  for (const one of root.querySelectorAll('*')) {
    expect(tags).toContain(one.localName);
    for (const { name, value } of one.attributes) {
      expect(['href', 'target', 'rel', 'class', 'type', 'tabindex', 'role', 'aria-label', 'align', 'start']).toContain(name);
      if (name === 'class') expect(['code-head', 'code-copy', 'code-frame', 'table-frame']).toContain(value);
      if (name === 'href') expect(value).toMatch(/^(https?:\/\/|mailto:)/);
    }
  }
  expect((window as unknown as { hacked?: number }).hacked).toBeUndefined();
});

test('raw HTML is shown as it was written', () => {
  expect(drawn('Use <b>bold</b> & <br>').textContent?.trim()).toBe('Use <b>bold</b> & <br>');
  expect(drawn('<div class="a">\n  text\n</div>').textContent?.trim()).toBe('<div class="a">  text</div>');
});

test('links open elsewhere and tell nothing', () => {
  const anchor = drawn('[site](https://example.org/a?b=1&c=2)').querySelector('a')!;
  expect([anchor.getAttribute('href'), anchor.target, anchor.rel]).toEqual(['https://example.org/a?b=1&c=2', '_blank', 'noopener noreferrer']);
});

test('images are links with their text', () => {
  const root = drawn('![A tiger](https://example.org/t.png)');
  expect(root.querySelector('img')).toBeNull();
  expect(root.querySelector('a')?.textContent).toBe('Image: A tiger');
});

test('code has its language and a copy button', () => {
  const root = drawn('```rust\nfn main() { let a = "<b>"; }\n```');
  expect(root.querySelector('.code-head span')?.textContent).toBe('rust');
  expect(root.querySelector('.code-copy')?.textContent).toBe('Copy');
  expect(root.querySelector('pre')?.textContent).toBe('fn main() { let a = "<b>"; }\n');
  expect(root.querySelector('code')?.className).toBe('');
});

test('tasks, tables, lists that start elsewhere', () => {
  expect(drawn('- [x] done\n- [ ] open').textContent).toContain('☑ done');
  expect(drawn('| a |\n|--:|\n| 1 |').querySelector('.table-frame td')?.getAttribute('align')).toBe('right');
  expect(drawn('3. c').querySelector('ol')?.getAttribute('start')).toBe('3');
});

test('syncing keeps the nodes that did not change', () => {
  const live = document.createElement('div');
  sync(live, render('- one\n- two', 2, say));
  const first = live.querySelector('li')!;
  const text = live.querySelectorAll('li')[1]!.firstChild;
  sync(live, render('- one\n- two and\n- three', 2, say));
  expect(live.querySelector('li')).toBe(first);
  expect(live.querySelectorAll('li')[1]!.firstChild).toBe(text);
  expect(live.querySelectorAll('li').length).toBe(3);
  sync(live, render('Only text', 2, say));
  expect(live.innerHTML.trim()).toBe('<p>Only text</p>');
});

test.each(['# a\n\n**b** `c`\n\n- d\n  - e\n\n| f |\n|---|\n| g |\n\n```x\ny\n```'])('synced step by step it is what is rendered at once', (text) => {
  const live = document.createElement('div');
  for (let cut = 0; cut <= text.length; cut++) sync(live, render(text.slice(0, cut), 2, say));
  expect(live.innerHTML).toBe(drawn(text).innerHTML);
});
