import { expect, test } from 'vitest';
import { render, type Words } from './render';
import { sync } from './sync';

const say: Words = { code: 'Code', copy: 'Copy', table: 'Table', image: (alt) => `Image: ${alt}` };

function drawn(text: string): HTMLElement {
  const root = document.createElement('div');
  root.append(render(text, 2, say));
  return root;
}

/** What people have used to get a script through Markdown. */
export const CORPUS = [
  '<script>window.hacked = 1</script>',
  '<img src=x onerror="window.hacked=1">',
  '<svg onload=window.hacked=1><script>window.hacked=1</script></svg>',
  '<iframe src="javascript:window.hacked=1"></iframe>',
  '<a href="javascript:window.hacked=1">x</a>',
  '[x](javascript:window.hacked=1)',
  '[x](JaVaScRiPt:window.hacked=1)',
  '[x](&#106;avascript:window.hacked=1)',
  '[x](javascript&colon;window.hacked=1)',
  '[x](java\tscript:window.hacked=1)',
  '[x](<java\nscript:alert(1)>)',
  '[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)',
  '[x](vbscript:msgbox(1))',
  '[x](//evil.example)',
  '[x](/api/session)',
  '[x](https://ok.example "onmouseover=window.hacked=1")',
  '[x](https://ok.example/"onmouseover="window.hacked=1)',
  '![x](https://evil.example/pixel.png)',
  '![x](x"onerror="window.hacked=1)',
  '![" onerror="window.hacked=1](https://evil.example/a.png)',
  '<javascript:window.hacked=1>',
  '<https://ok.example/"onclick="x>',
  '```"><img src=x onerror=window.hacked=1>\ncode\n```',
  '```js onload=x class="a"\n</code></pre><script>window.hacked=1</script>\n```',
  '`<img src=x onerror=window.hacked=1>`',
  '| a |\n|---|\n| <img src=x onerror=window.hacked=1> |',
  '# <style>*{display:none}</style>',
  '- <form action="/api/keys"><input name=x><button>go</button></form>',
  '> <object data="x"></object><embed src="x"><link rel=stylesheet href=x><base href="//evil.example"><meta http-equiv=refresh content="0;url=//evil.example">',
  '<div id="app" style="position:fixed;inset:0" class="x">over everything</div>',
  '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.hacked=1&gt;">',
  '<noscript><p title="</noscript><img src=x onerror=window.hacked=1>">',
  '<!--<img src="--><img src=x onerror=window.hacked=1//">',
  '<x/onclick=window.hacked=1>y',
  '<a\n href="x"\n onclick="window.hacked=1">y</a>',
  '[a]: javascript:window.hacked=1\n\n[a]',
  '**<b onmouseover=window.hacked=1>x</b>**',
  '<details open ontoggle=window.hacked=1>x</details>',
  '&lt;script&gt;window.hacked=1&lt;/script&gt;',
  '<video src=x onerror=window.hacked=1><source src="https://evil.example"></video>',
];

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
