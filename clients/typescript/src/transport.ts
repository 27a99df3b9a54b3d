// Sends a call over fetch until there is an answer that is no reason to try again: timeouts, tries, hanging up. Knows no endpoint.
import { answerError, APIAbortError, APIConnectionError, APIStatusError, APITimeoutError } from './errors.js';
import { StreamInterruptedError, type TigerCityError, UnexpectedAnswerError } from './errors.js';
import type { Body, Form } from './form.js';
import type { Source } from './stream.js';
import { VERSION } from './version.js';

export interface Settings {
  apiKey: string;
  baseURL: string;
  /** Milliseconds without a byte of the answer. */
  timeout: number;
  maxRetries: number;
  fetch: typeof globalThis.fetch;
}

export interface Call {
  method: string;
  path: string;
  query?: Record<string, number | undefined>;
  body?: unknown;
  /** In place of `body`. */
  form?: Form;
  headers?: Record<string, string>;
  /** False: sending it twice may do more than sending it once, so it is repeated only where the first one was not worked on. */
  repeatable?: boolean;
  signal?: AbortSignal | undefined;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8_000;
/** A server that asks for more is not waited for: the error says how long. */
const LONGEST_RETRY_AFTER_S = 60;
// Waiting mends none of these.
const LASTING = new Set(['not_downloaded', 'load_failed', 'out_of_memory', 'disk_full']);
// What Node calls a connection that was never opened. Browsers do not tell.
const UNSENT = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT']);

// The same of one that the other side ended.
const BROKEN = new Set(['EPIPE', 'ECONNRESET', 'UND_ERR_SOCKET']);

/** The answer's whole body. */
export async function send(settings: Settings, call: Call): Promise<Uint8Array> {
  return await tried(settings, call, async (settings, call) => {
    const exchange = new Exchange(settings, call);
    try {
      const response = await exchange.open();
      return await exchange.whole(response);
    } finally {
      exchange.end();
    }
  });
}

/** The answer's body as JSON. */
export async function json<T>(settings: Settings, call: Call): Promise<T> {
  const text = new TextDecoder().decode(await send(settings, call));
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new UnexpectedAnswerError('the answer is not JSON; is the base URL right?', { cause });
  }
}

/** The answer's body as it comes. */
export async function open(settings: Settings, call: Call): Promise<Source> {
  return await tried(settings, call, async (settings, call) => {
    const exchange = new Exchange(settings, call);
    try {
      const response = await exchange.open();
      return { bytes: exchange.pieces(response), cancel: () => exchange.cancel() };
    } catch (thrown) {
      exchange.end();
      throw thrown;
    }
  });
}

async function tried<T>(settings: Settings, call: Call, attempt: (settings: Settings, call: Call) => Promise<T>): Promise<T> {
  for (let number = 0; ; number++) {
    try {
      return await attempt(settings, call);
    } catch (thrown) {
      const pause = number < settings.maxRetries ? pauseMs(thrown, call, number) : undefined;
      if (pause === undefined) throw thrown;
      await sleep(pause, call.signal);
    }
  }
}

/** Milliseconds to wait before trying again, or undefined to give up. `attempt` counts from 0. */
export function pauseMs(thrown: unknown, call: Call, attempt: number, random: () => number = Math.random): number | undefined {
  if (!worthRetrying(thrown, call)) return undefined;
  const asked = thrown instanceof APIStatusError ? thrown.retryAfter : undefined;
  if (asked !== undefined) {
    // Up to a quarter longer, so that many clients do not come back at the same moment.
    return asked > LONGEST_RETRY_AFTER_S ? undefined : asked * 1000 * (1 + random() / 4);
  }
  return Math.min(FIRST_PAUSE_MS * 2 ** attempt, LONGEST_PAUSE_MS) * (1 - random() / 4);
}

function worthRetrying(thrown: unknown, { repeatable = true, form }: Call): boolean {
  if (form && !form.unused) return false;
  if (thrown instanceof APIConnectionError) return repeatable || unsent(thrown);
  if (!(thrown instanceof APIStatusError) || LASTING.has(thrown.code ?? '')) return false;
  // An earlier try of the same training still runs; when it has ended the key gives its answer.
  if (thrown.code === 'idempotency_in_flight') return true;
  // Refused before any work.
  if (thrown.status === 408 || thrown.status === 429 || (thrown.status === 503 && thrown.retryAfter !== undefined)) return true;
  return thrown.status >= 500 && repeatable;
}

/** Whether the request never left. */
function unsent(error: APIConnectionError): boolean {
  return UNSENT.has(codeOf(error.cause));
}

function codeOf(thrown: unknown): string {
  // `fetch failed` has the reason as its cause; several addresses have several.
  const { code, cause, errors } = (thrown ?? {}) as { code?: unknown; cause?: unknown; errors?: unknown[] };
  if (typeof code === 'string') return code;
  return cause ? codeOf(cause) : errors?.length ? codeOf(errors[0]) : '';
}

/** 32 hexadecimal digits; `crypto.randomUUID` is missing on pages without TLS. */
export function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function aborted(signal: AbortSignal): APIAbortError {
  return new APIAbortError('the call was aborted', { cause: signal.reason });
}

async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) throw aborted(signal);
  await new Promise<void>((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(aborted(signal as AbortSignal));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });
}

function unreachable(url: string, cause: unknown): APIConnectionError {
  return new APIConnectionError(`cannot reach ${url}: ${reason(cause)}; does \`tiger serve\` run there?`, { cause });
}

/** A server that refuses a large body before its end may be gone before its answer is read. */
function unsentWhole(url: string, cause: unknown): APIConnectionError {
  if (!BROKEN.has(codeOf(cause))) return unreachable(url, cause);
  const message = `the connection to ${url} ended while the files were sent (${codeOf(cause)}); is the key right, have they less than 1 GiB?`;
  return new APIConnectionError(message, { cause });
}

function interrupted(_: string, cause: unknown): APIConnectionError {
  return new StreamInterruptedError(`the connection failed before the answer was complete: ${reason(cause)}`, { cause });
}

function reason(thrown: unknown): string {
  const code = codeOf(thrown);
  if (code) return code;
  const cause = thrown instanceof Error && thrown.cause instanceof Error ? thrown.cause : thrown;
  return cause instanceof Error ? cause.message : String(cause);
}

type Sent = Partial<Body> & { headers: Record<string, string> };

/** One try: a request, its timer and what ends it. */
class Exchange {
  private readonly controller = new AbortController();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private release: (() => void) | undefined;
  /** Why it was ended from this side. */
  private why: TigerCityError | undefined;

  constructor(
    private readonly settings: Settings,
    private readonly call: Call,
  ) {}

  /** The answer's head; errors of the server are thrown. */
  async open(): Promise<Response> {
    const { signal } = this.call;
    if (signal?.aborted) throw aborted(signal);
    signal?.addEventListener('abort', this.onAbort, { once: true });
    this.wait();
    const response = await this.guarded(this.settings.fetch(this.url(), this.request()), this.call.form ? unsentWhole : unreachable);
    if (response.ok) return response;
    throw answerError(response.status, await this.guarded(response.text()), response.headers);
  }

  async whole(response: Response): Promise<Uint8Array> {
    // Piece by piece, so that a long answer has time for as long as it comes.
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    for await (const piece of this.pieces(response)) pieces.push(piece);
    return new Uint8Array(await new Blob(pieces).arrayBuffer());
  }

  /** The body piece by piece; each piece winds the timer up again. */
  async *pieces(response: Response): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const reader = response.body?.getReader();
    try {
      while (reader) {
        this.wait();
        const { done, value } = await this.guarded(reader.read(), interrupted);
        if (done) return;
        // A slow reader is not a slow server.
        clearTimeout(this.timer);
        yield value;
      }
    } finally {
      this.end();
    }
  }

  /** Hangs up. */
  cancel(): void {
    this.end();
    this.stop(new StreamInterruptedError('the stream was closed before its last chunk'));
  }

  /** Takes timer and listener away, and reads what was to be sent no further. */
  end(): void {
    this.release?.();
    clearTimeout(this.timer);
    this.call.signal?.removeEventListener('abort', this.onAbort);
  }

  private readonly onAbort = () => this.stop(aborted(this.call.signal as AbortSignal));

  private wait(): void {
    clearTimeout(this.timer);
    const { timeout, baseURL } = this.settings;
    if (timeout === Infinity) return;
    const message = `no answer from ${baseURL} within ${timeout} ms; raise \`timeout\` if it needs longer`;
    this.timer = setTimeout(() => this.stop(new APITimeoutError(message)), timeout);
  }

  private stop(why: TigerCityError): void {
    this.why ??= why;
    this.controller.abort();
  }

  private async guarded<T>(work: Promise<T>, failure = unreachable): Promise<T> {
    try {
      return await work;
    } catch (cause) {
      throw this.why ?? failure(this.settings.baseURL, cause);
    }
  }

  private url(): string {
    const given = Object.entries(this.call.query ?? {}).filter(([, value]) => value !== undefined);
    const query = given.map(([name, value]) => `${name}=${value}`).join('&');
    return this.settings.baseURL + this.call.path + (query && `?${query}`);
  }

  private request(): RequestInit & { duplex?: 'half' } {
    const { method, form } = this.call;
    const { headers, release, ...body }: Sent = form?.body() ?? this.json();
    this.release = release;
    const all: Record<string, string> = { authorization: `Bearer ${this.settings.apiKey}`, ...headers, ...this.call.headers };
    // Browsers name themselves.
    if ('process' in globalThis) all['user-agent'] = `tigercity-typescript/${VERSION}`;
    // A key is not sent where an answer points. These two together spare the copy of the body that `fetch` keeps for a redirect.
    const redirect: RequestInit = form ? { redirect: 'error', window: null } : { redirect: 'manual' };
    return { method, headers: all, ...body, signal: this.controller.signal, ...redirect };
  }

  private json(): Sent {
    if (this.call.body === undefined) return { headers: {} };
    return { body: JSON.stringify(this.call.body), headers: { 'content-type': 'application/json' } };
  }
}
