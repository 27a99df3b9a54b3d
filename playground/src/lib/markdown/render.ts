// One Markdown block as safe DOM. Raw HTML is shown as text, images become links, and DOMPurify has the last word on what remains.
import DOMPurify, { type Config } from 'dompurify';
import { Marked, type Tokens } from 'marked';
import { headingLevel } from './split';

/** Texts that this file puts between the answer's own. */
export interface Words {
  code: string;
  copy: string;
  table: string;
  image: (alt: string) => string;
}

const SIGNS: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text: string) => text.replace(/[&<>"']/g, (sign) => SIGNS[sign]!);

/** Where a link may lead: a whole address of the web, or mail. Anything else would be this server, or a script. */
const ADDRESS = /^(?:https?:\/\/|mailto:)[^\s]+$/i;

// Set for each call; parsing is synchronous.
let after = 2;
let words: Words;

/** The name of a language as far as it may be shown. */
export const languageOf = (said: string | undefined) => /^[\w+#.-]{1,24}/.exec(said ?? '')?.[0] ?? '';

const link = (href: string, inside: string) => (ADDRESS.test(href) ? `<a href="${escape(href)}">${inside}</a>` : inside);

const marked = new Marked({ gfm: true, breaks: true });
marked.use({
  renderer: {
    html: ({ raw, block }: Tokens.HTML | Tokens.Tag) => (block ? `<p>${escape(raw.trim()).replaceAll('\n', '<br>')}</p>\n` : escape(raw)),
    image: ({ href, text }: Tokens.Image) => link(href, escape(words.image(text))),
    link({ href, tokens }: Tokens.Link) {
      return link(href, this.parser.parseInline(tokens));
    },
    heading({ tokens, depth }: Tokens.Heading) {
      after = headingLevel(depth, after);
      return `<h${after}>${this.parser.parseInline(tokens)}</h${after}>\n`;
    },
    checkbox: ({ checked }: Tokens.Checkbox) => (checked ? '☑ ' : '☐ '),
    code({ text, lang }: Tokens.Code) {
      return `<pre><code class="${escape(languageOf(lang))}">${escape(text)}\n</code></pre>\n`;
    },
  },
});

const CONFIG: Config = {
  ALLOWED_TAGS: 'a p br h3 h4 h5 h6 ul ol li blockquote pre code em strong del hr table thead tbody tr th td'.split(' '),
  // A class only names the language of code; see `dress`.
  ALLOWED_ATTR: ['href', 'start', 'align', 'class'],
  ADD_URI_SAFE_ATTR: ['start', 'align', 'class'],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: ADDRESS,
  RETURN_DOM_FRAGMENT: true,
};

/** The DOM of a block that stands under a heading of level `under`. */
export function render(text: string, under: number, say: Words): DocumentFragment {
  after = under;
  words = say;
  const html = marked.parse(text, { async: false });
  const fragment = DOMPurify.sanitize(html, CONFIG) as unknown as DocumentFragment;
  dress(fragment, say);
  return fragment;
}

/** Adds what the answer did not bring: safe targets, a label and a copy button on code, frames that scroll. */
function dress(fragment: DocumentFragment, say: Words): void {
  for (const anchor of fragment.querySelectorAll('a')) {
    anchor.target = '_blank';
    anchor.rel = 'noopener noreferrer';
  }
  for (const pre of fragment.querySelectorAll('pre')) {
    const language = pre.querySelector('code')?.className ?? '';
    const head = element('div', 'code-head');
    const copy = element('button', 'code-copy');
    copy.setAttribute('type', 'button');
    copy.append(say.copy);
    const label = element('span', '');
    label.append(language);
    head.append(label, copy);
    const frame = element('div', 'code-frame');
    pre.replaceWith(frame);
    scrollable(pre, language || say.code);
    frame.append(head, pre);
  }
  for (const table of fragment.querySelectorAll('table')) {
    const frame = element('div', 'table-frame');
    table.replaceWith(frame);
    scrollable(frame, say.table);
    frame.append(table);
  }
  for (const one of fragment.querySelectorAll('code')) one.removeAttribute('class');
}

function element(name: string, className: string): HTMLElement {
  const made = document.createElement(name);
  if (className) made.className = className;
  return made;
}

/** What scrolls must be reachable by keyboard, and then needs a name. */
function scrollable(one: HTMLElement, label: string): void {
  one.tabIndex = 0;
  one.setAttribute('role', 'group');
  one.setAttribute('aria-label', label);
}
