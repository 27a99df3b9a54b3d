// Calls the server: the page's header on every request, every failure as one kind of error that says what to do. Knows no page.
import { objects } from './ndjson';
import type { Chunk, ErrorBody, StopChunk } from './types';

/** A call that did not go well: an error of the server, or no answer at all (`status` 0). */
export class ApiError extends Error {
  override readonly name = 'ApiError';

  constructor(
    readonly status: number,
    readonly body: ErrorBody,
    /** Seconds after which it may be tried again. */
    readonly retryAfter?: number,
  ) {
    super(body.message);
  }

  get code(): string {
    return this.body.code;
  }

  get requestId(): string | undefined {
    return this.body.request_id;
  }
}

function unreachable(): ApiError {
  const message = 'The server does not answer. Look whether `tiger serve` still runs, then try again.';
  return new ApiError(0, { type: 'network', code: 'unreachable', message });
}

function interrupted(): ApiError {
  const message = 'The connection ended before the answer was complete: the server was stopped or the network failed. Try again.';
  return new ApiError(0, { type: 'network', code: 'interrupted', message });
}

/** Turns anything thrown into an ApiError; an abort by the user stays an abort. */
export function asApiError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  return new ApiError(0, { type: 'page', code: 'page_error', message: thrown instanceof Error ? thrown.message : String(thrown) });
}

/** Whether the user stopped it. */
export function isAbort(thrown: unknown): boolean {
  return thrown instanceof DOMException && thrown.name === 'AbortError';
}

let onSignedOut = () => {};

/** Called when an answer says that the session is over. */
export function whenSignedOut(callback: () => void): void {
  onSignedOut = callback;
}

export interface CallOptions {
  signal?: AbortSignal;
  headers?: Record<string, string>;
  /** Lets the request outlive the page; its body must be under 64 KiB. */
  keepalive?: boolean;
}

async function send(method: string, path: string, body: unknown, options: CallOptions): Promise<Response> {
  const headers: Record<string, string> = { 'x-tiger-csrf': '1', ...options.headers };
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: options.signal,
      keepalive: options.keepalive,
      credentials: 'same-origin',
    });
  } catch (thrown) {
    if (isAbort(thrown)) throw thrown;
    throw unreachable();
  }
  if (response.ok) return response;
  throw await failure(response);
}

async function failure(response: Response): Promise<ApiError> {
  return failureOf(response.status, await response.text().catch(() => ''), (name) => response.headers.get(name));
}

/** The error of an answer. */
export function failureOf(status: number, text: string, header: (name: string) => string | null): ApiError {
  let body: ErrorBody;
  try {
    body = (JSON.parse(text) as { error: ErrorBody }).error;
  } catch {
    const request_id = header('x-request-id') ?? undefined;
    body = { type: 'server', code: 'unexpected', message: `The server answered ${status} without an explanation.`, request_id };
  }
  if (body.code === 'no_session' || body.code === 'missing_key') onSignedOut();
  const retry = Number(header('retry-after'));
  return new ApiError(status, body, retry > 0 ? retry : undefined);
}

/** One call with a JSON answer. */
export async function call<T>(method: string, path: string, body?: unknown, options: CallOptions = {}): Promise<T> {
  const response = await send(method, path, body, options);
  try {
    return (await response.json()) as T;
  } catch (thrown) {
    if (isAbort(thrown)) throw thrown;
    throw interrupted();
  }
}

/** A file: its bytes, whole. */
export async function file(path: string, options: CallOptions = {}): Promise<Blob> {
  const response = await send('GET', path, undefined, options);
  try {
    return await response.blob();
  } catch (thrown) {
    if (isAbort(thrown)) throw thrown;
    throw interrupted();
  }
}

export const get = <T>(path: string, options?: CallOptions) => call<T>('GET', path, undefined, options);
export const post = <T>(path: string, body?: unknown, options?: CallOptions) => call<T>('POST', path, body, options);
export const put = <T>(path: string, body?: unknown, options?: CallOptions) => call<T>('PUT', path, body, options);
export const patch = <T>(path: string, body?: unknown, options?: CallOptions) => call<T>('PATCH', path, body, options);
export const del = <T>(path: string, options?: CallOptions) => call<T>('DELETE', path, undefined, options);

/**
 * A streamed call: every chunk as it comes, `stop` last. An `error` chunk and a connection that ends early are thrown.
 * Leaving the loop, or aborting the signal, ends the work on the server.
 */
export async function* stream<S = StopChunk>(path: string, body: object, options: CallOptions = {}): AsyncGenerator<Chunk<S>> {
  const response = await send('POST', path, { ...body, stream: true }, options);
  if (!response.body) throw interrupted();
  try {
    for await (const chunk of objects<Chunk<S>>(response.body)) {
      if (chunk.type === 'error') throw new ApiError(response.status, chunk.error);
      yield chunk;
      if (chunk.type === 'stop') return;
    }
  } catch (thrown) {
    if (thrown instanceof ApiError || isAbort(thrown)) throw thrown;
    throw interrupted();
  }
  throw interrupted();
}
