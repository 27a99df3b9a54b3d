// Cuts a byte stream into lines, wherever the network cut it, in a character too. Does not know what a line holds.
import { UnexpectedAnswerError } from './errors.js';

/** Longer lines are refused: a server that never ends a line would otherwise fill the memory. 64 Mi characters. */
const MAX_LINE_CHARS = 64 * 1024 * 1024;

export class Lines {
  private readonly decoder = new TextDecoder();
  /** What came since the last line end, in pieces, so that a long line costs its length once. */
  private pieces: string[] = [];
  private chars = 0;

  /** The lines that are complete now; empty ones are left out. */
  push(bytes: Uint8Array): string[] {
    return this.cut(this.decoder.decode(bytes, { stream: true }));
  }

  /** A last line without its end. */
  finish(): string[] {
    const found = this.cut(this.decoder.decode());
    const last = this.pieces.join('').trim();
    this.pieces = [];
    return last ? [...found, last] : found;
  }

  private cut(text: string): string[] {
    const [first = '', ...rest] = text.split('\n');
    this.keep(first);
    const found: string[] = [];
    for (const piece of rest) {
      const line = this.pieces.join('').trim();
      if (line) found.push(line);
      this.pieces = [];
      this.chars = 0;
      this.keep(piece);
    }
    return found;
  }

  private keep(piece: string): void {
    if (piece) this.pieces.push(piece);
    this.chars += piece.length;
    if (this.chars > MAX_LINE_CHARS) throw new UnexpectedAnswerError(`a line of the stream is longer than ${MAX_LINE_CHARS} characters`);
  }
}
