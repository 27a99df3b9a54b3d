// Splits growing Markdown into blocks that are finished and the one that still grows, so that only the last is rendered again.
// Pure; knows no DOM. Where a block ends is what marked's own lexer says, asked only about the growing end.
import { Lexer } from 'marked';

export interface Block {
  text: string;
  /** Level of the heading before this block (of the page, where an answer's own headings begin at 3). */
  after: number;
}

/** The level that stands above an answer. */
export const ANSWER_LEVEL = 2;

/** A heading's level on the page: the answer's structure, but never a step that leaves one out. */
export const headingLevel = (depth: number, after: number) => Math.min(depth + ANSWER_LEVEL, after + 1, 6);

/** An unfinished line that can only begin something new: a letter, bold, a heading's text, code. A digit or a dash may yet continue a list. */
const DECIDED = /^(?:\p{L}|\*\*[^\s*]|#{1,6} \S|`)/u;

export class Splitter {
  /** Finished blocks: never changed, only added to. */
  readonly done: Block[] = [];
  private text = '';
  private start = 0;
  private examined = 0;
  private after = ANSWER_LEVEL;

  /** All blocks of the text so far, the last one unfinished. Text that was changed, not extended, starts anew. */
  push(source: string): Block[] {
    const text = source.replace(/\r\n?/g, '\n');
    if (!text.startsWith(this.text)) this.reset();
    this.text = text;
    this.freeze();
    const rest = text.slice(this.start);
    return rest.trim() === '' ? [...this.done] : [...this.done, { text: rest, after: this.after }];
  }

  private reset(): void {
    this.done.length = 0;
    this.start = 0;
    this.examined = 0;
    this.after = ANSWER_LEVEL;
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
    for (const token of tokens.slice(0, Math.max(0, last))) {
      // Should a lexer ever rewrite what it read, the rest simply stays unfinished.
      if (!this.text.startsWith(token.raw, this.start)) return;
      this.start += token.raw.length;
      if (token.type === 'space') continue;
      this.done.push({ text: token.raw, after: this.after });
      if (token.type === 'heading') this.after = headingLevel(token.depth as number, this.after);
    }
  }
}
