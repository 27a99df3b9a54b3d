// What can go wrong, by class: by the status where the server answered. Knows no transport.
import type { ErrorBody as WireErrorBody } from './schema.js';

/** The `error` object; of a newer server or of a proxy anything may be missing. */
export type ErrorBody = Partial<{ [Field in keyof WireErrorBody]: string | null }>;

/** Every error of this package. */
export class TigerCityError extends Error {
  /** Names the request in the server's log; quote it when reporting a problem. Undefined where no server answered. */
  readonly requestId: string | undefined = undefined;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** No answer, or one that ended early. `cause` has the transport's own error. */
export class APIConnectionError extends TigerCityError {}

/** The server took longer than `timeout`. */
export class APITimeoutError extends APIConnectionError {}

/** An answer or a stream ended before its end: what came is not complete. */
export class StreamInterruptedError extends APIConnectionError {}

/** The caller's `signal` ended the call. */
export class APIAbortError extends TigerCityError {}

/** An answer that is none of this API's: is the base URL right? */
export class UnexpectedAnswerError extends TigerCityError {}

/** The server answered with an error; the message is the server's and says what to do. */
export class APIStatusError extends TigerCityError {
  override readonly requestId: string | undefined;
  readonly type: string | undefined;
  /** What exactly, for programs: `invalid_parameter`, `model_not_found`, … */
  readonly code: string | undefined;
  /** The field at fault, e.g. `messages[2].role`. */
  readonly param: string | undefined;

  constructor(
    readonly status: number,
    readonly body: ErrorBody,
    /** Seconds after which the server wants to be asked again. */
    readonly retryAfter?: number,
  ) {
    super(body.message ?? `the server answered ${status}`);
    this.requestId = body.request_id ?? undefined;
    this.type = body.type ?? undefined;
    this.code = body.code ?? undefined;
    this.param = body.param ?? undefined;
  }
}

/** 400: the request is not understood. */
export class BadRequestError extends APIStatusError {}
/** 401: no key, an unknown or a revoked one. */
export class AuthenticationError extends APIStatusError {}
/** 403: base models are read-only. */
export class PermissionDeniedError extends APIStatusError {}
/** 404: no such model or revision. */
export class NotFoundError extends APIStatusError {}
/** 409: name taken, another revision, weights no longer kept. */
export class ConflictError extends APIStatusError {}
/** 422: well-formed but invalid; `param` names the field. */
export class UnprocessableEntityError extends APIStatusError {}
/** 429: too many requests; `retryAfter` says when. */
export class RateLimitError extends APIStatusError {}
/** 500 and above: the server's fault, or it is starting, stopping or without the model's weights. */
export class InternalServerError extends APIStatusError {}

const BY_STATUS: Record<number, typeof APIStatusError> = {
  400: BadRequestError,
  401: AuthenticationError,
  403: PermissionDeniedError,
  404: NotFoundError,
  409: ConflictError,
  422: UnprocessableEntityError,
  429: RateLimitError,
};

// Errors inside a stream come without a status; each type has one.
const STATUS_OF_TYPE: Record<string, number> = {
  invalid_request: 400,
  authentication: 401,
  permission: 403,
  not_found: 404,
  method_not_allowed: 405,
  timeout: 408,
  conflict: 409,
  too_large: 413,
  validation: 422,
  rate_limit: 429,
  internal: 500,
  unavailable: 503,
};

function statusError(status: number, body: ErrorBody, retryAfter?: number): APIStatusError {
  const kind = BY_STATUS[status] ?? (status >= 500 ? InternalServerError : APIStatusError);
  return new kind(status, body, retryAfter);
}

/** The error of an HTTP answer, which may be that of a proxy and not JSON at all. */
export function answerError(status: number, text: string, headers: Headers): APIStatusError {
  let body: ErrorBody | undefined;
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    if (typeof error === 'object' && error !== null) body = error;
  } catch {
    // Told below.
  }
  body ??= { message: `the server answered ${status} without an error of this API; is the base URL right?` };
  body.request_id ??= headers.get('x-request-id');
  return statusError(status, body, retryAfterS(headers.get('retry-after')));
}

/** The error of a stream's last chunk. */
export function streamedError(body: ErrorBody): APIStatusError {
  return statusError(STATUS_OF_TYPE[body.type ?? ''] ?? 500, body);
}

/** Seconds of a `Retry-After` header, which holds seconds or a date. */
export function retryAfterS(header: string | null): number | undefined {
  if (!header) return undefined;
  if (/^\s*\d+(\.\d+)?\s*$/.test(header)) return Number(header);
  // A date has letters; `Date.parse` also takes "-1" for a year.
  const date = /^[A-Z]/i.test(header) ? Date.parse(header) : NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, (date - Date.now()) / 1000);
}
