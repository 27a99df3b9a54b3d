// Draws a block into its element by the fewest changes. Long tables are drawn in pieces of rows: checking a whole table for safety again
// with every new row would hold the page.
import { render, type Words } from './render';
import type { Block } from './split';
import { sync } from './sync';

/** Rows of one piece. */
const ROWS = 16;
const DELIMITER = /^\|(?:\s*:?-+:?\s*\|)+\s*$/;

/** A long table as tables of few rows each, all with the head; undefined for anything else. */
export function tablePieces(text: string): string[] | undefined {
  const lines = text.trimEnd().split('\n');
  const [head, delimiter, ...rows] = lines;
  if (rows.length <= ROWS || !DELIMITER.test(delimiter!) || !lines.every((line) => line.startsWith('|'))) return undefined;
  const pieces: string[] = [];
  for (let at = 0; at < rows.length; at += ROWS) pieces.push([head, delimiter, ...rows.slice(at, at + ROWS)].join('\n'));
  return pieces;
}

/** Draws something nobody sees: the first drawing is slow, and should not be the first words of an answer. */
export function warm(say: Words): void {
  render('# a\n\n*b* `c` [d](https://e.example)\n\n- f\n\n| g |\n|---|\n| h |\n\n```i\nj\n```\n', 2, say);
}

/** The pieces that an element shows. */
const drawn = new WeakMap<Node, string[]>();

export function draw(node: HTMLElement, block: Block, say: Words): void {
  const pieces = tablePieces(block.text);
  if (!pieces) {
    drawn.delete(node);
    sync(node, render(block.text, block.after, say));
    return;
  }
  const before = drawn.get(node) ?? [];
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
  drawn.set(node, pieces);
}
