// Turns deltas that come in bursts into steady growth, applied once a frame: never a long task, never a jump. Knows no page.

export interface Piece {
  kind: 'content' | 'reasoning';
  text: string;
}

/** Fewest characters a frame, so that an ending does not crawl. */
const LEAST = 10;
/** What waits is shown within about this many frames. */
const FRAMES = 4;

export class Flow {
  private waiting: Piece[] = [];
  private chars = 0;
  private scheduled = false;
  private drained: (() => void)[] = [];

  constructor(
    private readonly apply: (pieces: Piece[]) => void,
    private readonly frame: (run: () => void) => void,
    /** Shows all that came at once, for those who want no motion. */
    private readonly whole = false,
  ) {}

  push(kind: Piece['kind'], text: string): void {
    if (text === '') return;
    const last = this.waiting.at(-1);
    if (last?.kind === kind) last.text += text;
    else this.waiting.push({ kind, text });
    this.chars += text.length;
    this.schedule();
  }

  /** Resolves when everything that came is shown. */
  drain(): Promise<void> {
    if (this.chars === 0) return Promise.resolve();
    return new Promise((resolve) => this.drained.push(resolve));
  }

  /** Shows everything now. */
  flush(): void {
    this.step(this.chars);
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    this.frame(() => {
      this.scheduled = false;
      this.step(this.whole ? this.chars : Math.max(LEAST, Math.ceil(this.chars / FRAMES)));
      if (this.chars > 0) this.schedule();
    });
  }

  private step(most: number): void {
    const taken: Piece[] = [];
    let left = most;
    for (let first = this.waiting[0]; first && left > 0; first = this.waiting[0]) {
      const cut = left >= first.text.length ? first.text.length : wholeCharacter(first.text, left);
      taken.push({ kind: first.kind, text: first.text.slice(0, cut) });
      left -= cut;
      this.chars -= cut;
      first.text = first.text.slice(cut);
      if (first.text === '') this.waiting.shift();
    }
    if (taken.length) this.apply(taken);
    if (this.chars === 0) for (const resolve of this.drained.splice(0)) resolve();
  }
}

/** Not between the halves of a character outside the basic plane. */
function wholeCharacter(text: string, at: number): number {
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code <= 0xdfff ? at + 1 : at;
}

/** The next frame, or soon where the page is not shown and has no frames. */
export function nextFrame(run: () => void): void {
  let done = false;
  const once = () => {
    if (done) return;
    done = true;
    clearTimeout(timer);
    cancelAnimationFrame(request);
    run();
  };
  const timer = setTimeout(once, 250);
  const request = requestAnimationFrame(once);
}
