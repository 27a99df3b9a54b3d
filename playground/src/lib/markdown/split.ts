// Splits growing Markdown into blocks that are finished and the one that still grows, so that only the last is rendered again. Long
// lists and quotes are cut into pieces that are drawn as one. Pure; knows no DOM. Where a block ends is what marked's own lexer says,
// asked only about the growing end.
import { Lexer, type Token, type Tokens } from 'marked';

export interface Block {
  text: string;
  /** Level of the heading before this block (of the page, where an answer's own headings begin at 3). */
  after: number;
  /** It goes on what the block before began; `start` is the number of an ordered list's first item here. */
  joins?: { kind: 'list' | 'quote'; start?: number };
}

/** The level that stands above an answer. */
export const ANSWER_LEVEL = 2;

/** A heading's level on the page: the answer's structure, but never a step that leaves one out. */
export const headingLevel = (depth: number, after: number) => Math.min(depth + ANSWER_LEVEL, after + 1, 6);

/** An unfinished line that can only begin something new: a letter, bold, a heading's text, code. A digit or a dash may yet continue a list. */
const DECIDED = /^(?:\p{L}|\*\*[^\s*]|#{1,6} \S|`)/u;

/** A piece of a list or a quote has at least this many characters. */
const PIECE = 1200;
/** Items, or blocks of a quote, that must follow a piece: the last one may still change, and with it the end of the one before. */
const BEHIND = 2;
const QUOTED = /^ {0,3}> ?/;

interface Piece {
  raw: string;
  /** Items of a list. */
  items: number;
}

/** Joins parts to pieces. Whatever follows later, pieces before the last stay the same. */
function gather(parts: string[], ends: (at: number) => boolean): Piece[] {
  const pieces: Piece[] = [{ raw: '', items: 0 }];
  parts.forEach((part, at) => {
    const last = pieces.at(-1)!;
    last.raw += part;
    last.items++;
    if (last.raw.length >= PIECE && at + BEHIND < parts.length && ends(at)) pieces.push({ raw: '', items: 0 });
  });
  return pieces;
}

/** The pieces of one token; a single one of most. */
function piecesOf(token: Token): Piece[] {
  const whole = [{ raw: token.raw, items: 0 }];
  if (token.raw.length < PIECE) return whole;
  if (token.type === 'list') return gather((token as Tokens.List).items.map((item) => item.raw), () => true);
  if (token.type !== 'blockquote') return whole;
  const lines = token.raw.split('\n');
  // Lazy lines have no mark: where they belong depends on what is before them.
  if (!lines.every((line) => QUOTED.test(line))) return whole;
  const tokens = new Lexer().blockTokens(lines.map((line) => line.replace(QUOTED, '')).join('\n'), []);
  let at = 0;
  const parts = tokens.map((inner) => {
    const from = at;
    at += inner.raw.split('\n').length - 1;
    return lines.slice(from, at).map((line) => `${line}\n`).join('');
  });
  if (at < lines.length) parts.push(lines.slice(at).join('\n'));
  return gather(parts, (part) => tokens[part]?.type === 'space');
}

export class Splitter {
  /** Finished blocks: never changed, only added to. */
  readonly done: Block[] = [];
  private text = '';
  private start = 0;
  private examined = 0;
  private after = ANSWER_LEVEL;
  /** What the growing end goes on with. */
  private joins: Block['joins'];

  /** All blocks of the text so far, the last one unfinished. Text that was changed, not extended, starts anew. */
  push(source: string): Block[] {
    const text = source.replace(/\r\n?/g, '\n');
    if (!text.startsWith(this.text)) this.reset();
    this.text = text;
    this.freeze();
    const rest = text.slice(this.start);
    return rest.trim() === '' ? [...this.done] : [...this.done, this.block(rest)];
  }

  private block(text: string): Block {
    return { text, after: this.after, ...(this.joins && { joins: this.joins }) };
  }

  private reset(): void {
    this.done.length = 0;
    this.start = 0;
    this.examined = 0;
    this.after = ANSWER_LEVEL;
    this.joins = undefined;
  }

  private freeze(): void {
    const line = this.text.lastIndexOf('\n') + 1;
    // Of an unfinished line its beginning is enough, once it is decided.
    const mark = DECIDED.test(this.text.slice(line, line + 16)) ? line + 1 : line;
    if (mark <= this.examined) return;
    this.examined = mark;
    const settled = this.text.slice(this.start, mark > line ? undefined : line);
    const tokens = new Lexer().blockTokens(settled, []);
    const last = tokens.findLastIndex((token) => token.type !== 'space');
    for (const token of tokens.slice(0, last + 1)) if (!this.take(token, token === tokens[last])) return;
  }

  /** Takes a token as finished; of the growing one only the pieces that are. False where a lexer rewrote what it read: the rest stays unfinished. */
  private take(token: Token, growing: boolean): boolean {
    if (token.type === 'space') return this.skip(token.raw);
    const pieces = piecesOf(token);
    let number = this.joins?.start ?? (token.type === 'list' && (token as Tokens.List).ordered ? Number((token as Tokens.List).start) : undefined);
    for (const [at, { raw, items }] of pieces.entries()) {
      const ends = at === pieces.length - 1;
      if (ends && growing) return true;
      const block = this.block(raw);
      if (!this.skip(raw)) return false;
      this.done.push(block);
      if (number !== undefined) number += items;
      this.joins = ends ? undefined : { kind: token.type === 'list' ? 'list' : 'quote', ...(number !== undefined && { start: number }) };
    }
    if (token.type === 'heading') this.after = headingLevel(token.depth as number, this.after);
    return true;
  }

  private skip(raw: string): boolean {
    if (!this.text.startsWith(raw, this.start)) return false;
    this.start += raw.length;
    return true;
  }
}
