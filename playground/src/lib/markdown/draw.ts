// Draws a block into its element by the fewest changes. Long tables are drawn in pieces of rows and long code in pieces of lines: checking
// the whole for safety and laying it out again with every new line would hold the page.
import { Lexer, type Tokens } from 'marked';
import { languageOf, render, type Words } from './render';
import type { Block } from './split';
import { sync } from './sync';

/** Rows of one piece. */
const ROWS = 16;
const DELIMITER = /^\|(?:\s*:?-+:?\s*\|)+\s*$/;
/** Code longer than this, characters, is drawn in pieces of so many lines. */
const LONG_CODE = 1500;
const LINES = 32;
const FENCE = /^ {0,3}(?:`{3}|~{3})/;

/** A long table as tables of few rows each, all with the head; undefined for anything else. */
export function tablePieces(text: string): string[] | undefined {
  const lines = text.trimEnd().split('\n');
  const [head, delimiter, ...rows] = lines;
  if (rows.length <= ROWS || !DELIMITER.test(delimiter!) || !lines.every((line) => line.startsWith('|'))) return undefined;
  const pieces: string[] = [];
  for (let at = 0; at < rows.length; at += ROWS) pieces.push([head, delimiter, ...rows.slice(at, at + ROWS)].join('\n'));
  return pieces;
}

/** Long code in fences as pieces of few lines each; undefined for anything else. */
export function codePieces(text: string): { language: string; pieces: string[] } | undefined {
  if (text.length < LONG_CODE || !FENCE.test(text)) return undefined;
  const tokens = new Lexer().blockTokens(text, []).filter((token) => token.type !== 'space');
  const code = tokens[0] as Tokens.Code | undefined;
  if (tokens.length !== 1 || code?.type !== 'code') return undefined;
  const lines = code.text.split('\n');
  const pieces: string[] = [];
  for (let at = 0; at < lines.length; at += LINES) pieces.push(`${lines.slice(at, at + LINES).join('\n')}\n`);
  return { language: languageOf(code.lang), pieces };
}

/** Draws something nobody sees: the first drawing is slow, and should not be the first words of an answer. */
export function warm(say: Words): void {
  render('# a\n\n*b* `c` [d](https://e.example)\n\n- f\n\n| g |\n|---|\n| h |\n\n```i\nj\n```\n', 2, say);
}

/** The pieces that an element shows. */
const drawn = new WeakMap<Node, { kind: 'table' | 'code'; pieces: string[] }>();

/** Draws at most so many new pieces of a long block; true when nothing is left. */
export function draw(node: HTMLElement, block: Block, say: Words, most = Number.POSITIVE_INFINITY): boolean {
  const known = drawn.get(node)?.pieces.length ?? 0;
  const rows = tablePieces(block.text);
  if (rows) {
    drawTable(node, block, rows.slice(0, known + most), say);
    return known + most >= rows.length;
  }
  const code = codePieces(block.text);
  if (code) {
    drawCode(node, block, { ...code, pieces: code.pieces.slice(0, known + most) }, say);
    return known + most >= code.pieces.length;
  }
  drawn.delete(node);
  const fragment = render(block.text, block.after, say);
  const first = fragment.firstElementChild;
  if (block.joins?.start !== undefined && first?.localName === 'ol') first.setAttribute('start', String(block.joins.start));
  sync(node, fragment);
  return true;
}

function drawTable(node: HTMLElement, block: Block, pieces: string[], say: Words): void {
  const known = drawn.get(node);
  const before = known?.kind === 'table' ? known.pieces : [];
  if (!before.length) sync(node, render(pieces[0]!, block.after, say));
  const table = node.querySelector('table');
  pieces.forEach((piece, at) => {
    if (before[at] === piece || (at === 0 && !before.length)) return;
    const body = render(piece, block.after, say).querySelector('tbody');
    const live = table?.tBodies[at];
    if (!body || !table) return;
    if (live) sync(live, body);
    else table.append(body);
  });
  while (table && table.tBodies.length > pieces.length) table.tBodies[pieces.length]!.remove();
  drawn.set(node, { kind: 'table', pieces });
}

/** Only text nodes are made of the code itself: there is nothing to check. */
function drawCode(node: HTMLElement, block: Block, { language, pieces }: { language: string; pieces: string[] }, say: Words): void {
  const known = drawn.get(node);
  const before = known?.kind === 'code' ? known.pieces : [];
  if (!before.length) {
    sync(node, render(`\`\`\`${language}\n\`\`\``, block.after, say));
    node.querySelector('code')!.textContent = '';
  }
  const code = node.querySelector('code')!;
  pieces.forEach((piece, at) => {
    const old = before[at];
    if (old === piece) return;
    let lines = code.childNodes[at];
    if (!lines) {
      const made = document.createElement('span');
      made.className = 'code-lines';
      code.append(made);
      lines = made;
    }
    // The newline at the end moves on with each line.
    const text = lines.firstChild as Text | null;
    const same = old?.slice(0, -1);
    if (text && same !== undefined && piece.startsWith(same)) text.replaceData(same.length, 1, piece.slice(same.length));
    else lines.textContent = piece;
  });
  while (code.childNodes.length > pieces.length) code.lastChild!.remove();
  drawn.set(node, { kind: 'code', pieces });
}
