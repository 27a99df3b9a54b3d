// Keeps a conversation on the server: created once, then replaced, one request at a time, never over somebody else's newer version.
// Knows no page; the world (requests, clock) is given.
import { ApiError, asApiError } from '../api/client';
import type { Chat, ChatDocument } from '../api/types';

export type SaveState =
  | { kind: 'saved' }
  | { kind: 'saving' }
  /** Will be tried again. */
  | { kind: 'waiting'; error: ApiError }
  /** Another tab or window has changed it. */
  | { kind: 'conflict' }
  /** It was deleted elsewhere. */
  | { kind: 'gone' }
  /** The server will not take it as it is. */
  | { kind: 'refused'; error: ApiError };

export interface SaverWorld {
  document(): ChatDocument;
  create(document: ChatDocument, keepalive: boolean): Promise<Chat>;
  replace(id: string, document: ChatDocument & { version: number }, keepalive: boolean): Promise<Chat>;
  onstate(state: SaveState): void;
  onsaved(chat: Chat): void;
  /** Runs something later and returns what prevents it. */
  later(run: () => void, ms: number): () => void;
}

/** Changes within this time are saved together, ms. */
const DEBOUNCE_MS = 400;
const RETRY_MS = [2000, 5000, 15_000, 60_000];
/** Browsers send no more than 64 KiB from a page that is going away. */
const KEEPALIVE_BYTES = 60_000;

export class Saver {
  private dirty = false;
  private saving = false;
  private stopped = false;
  private failures = 0;
  private cancel?: () => void;

  constructor(
    private readonly world: SaverWorld,
    public id?: string,
    public version = 0,
  ) {}

  /** Something changed. */
  touch(): void {
    if (this.stopped) return;
    this.dirty = true;
    if (!this.saving) this.plan(DEBOUNCE_MS);
  }

  get unsaved(): boolean {
    return this.dirty || this.saving;
  }

  /** Saves now what is not yet saved. */
  async flush(): Promise<void> {
    if (!this.dirty || this.saving || this.stopped) return;
    await this.save(false);
  }

  /** The page goes away: one last request that outlives it, where it is small enough. */
  leave(): void {
    if (!this.dirty || this.stopped) return;
    const document = this.world.document();
    if (new TextEncoder().encode(JSON.stringify(document)).length > KEEPALIVE_BYTES) return;
    // One that is under way may come first; then this one is refused as a conflict and nothing is lost but the last words.
    if (this.id) void this.world.replace(this.id, { ...document, version: this.version }, true).catch(() => undefined);
    else if (!this.saving) void this.world.create(document, true).catch(() => undefined);
  }

  /** Goes on as a new conversation: after a conflict, "keep mine". */
  startAnew(): void {
    this.id = undefined;
    this.version = 0;
    this.stopped = false;
    this.touch();
  }

  /** Nothing is saved any more: it was deleted here. */
  end(): void {
    this.stopped = true;
    this.cancel?.();
  }

  private plan(ms: number): void {
    this.cancel?.();
    this.cancel = this.world.later(() => void this.save(false), ms);
  }

  private async save(keepalive: boolean): Promise<void> {
    if (this.saving || this.stopped) return;
    this.cancel?.();
    this.saving = true;
    this.dirty = false;
    this.world.onstate({ kind: 'saving' });
    try {
      const document = this.world.document();
      const chat = this.id ? await this.world.replace(this.id, { ...document, version: this.version }, keepalive) : await this.world.create(document, keepalive);
      this.id = chat.id;
      this.version = chat.version;
      this.failures = 0;
      this.world.onsaved(chat);
      if (!this.dirty) this.world.onstate({ kind: 'saved' });
    } catch (thrown) {
      this.failed(asApiError(thrown));
    } finally {
      this.saving = false;
    }
    if (this.dirty && this.failures === 0) this.plan(DEBOUNCE_MS);
  }

  private failed(error: ApiError): void {
    this.dirty = true;
    if (error.status === 409 || error.status === 404) {
      // Without an id there is nobody to conflict with: the server does not keep conversations, or refuses this one.
      if (!this.id) return this.refuse(error);
      this.stopped = true;
      this.world.onstate({ kind: error.status === 409 ? 'conflict' : 'gone' });
    } else if (error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429) this.refuse(error);
    else {
      const wait = RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]!;
      this.world.onstate({ kind: 'waiting', error });
      this.plan(Math.max(wait, (error.retryAfter ?? 0) * 1000));
    }
  }

  /** Tried again at the next change, which may be what makes it fit. */
  private refuse(error: ApiError): void {
    this.dirty = false;
    this.failures = 0;
    this.world.onstate({ kind: 'refused', error });
  }
}
