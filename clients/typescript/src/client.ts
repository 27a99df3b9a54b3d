// `TigerCity`: address, key, timeouts and tries, with the calls of text and training. Does not know how a call is sent.
import { TigerCityError } from './errors.js';
import { type CallOptions, Models } from './models.js';
import { GenerateStream, trainStream, type TrainStream } from './stream.js';
import { type Call, json, open, randomKey, type Settings } from './transport.js';
import type { GenerateParams, GenerateResponse, TrainParams, TrainResponse } from './types.js';

const DEFAULT_BASE_URL = 'http://localhost:45678';
/** Ten minutes without a byte: a large model on a CPU may take long for a whole answer. A stream sends bytes as it goes. */
const DEFAULT_TIMEOUT_MS = 600_000;

export interface ClientOptions {
  /** Default: the variable TIGER_API_KEY. In a browser every visitor can read it. */
  apiKey?: string;
  /** Default: the variable TIGER_BASE_URL, else http://localhost:45678. */
  baseURL?: string;
  /** Milliseconds without a byte of the answer, 600,000 by default; Infinity waits for ever. */
  timeout?: number;
  /** Tries after a failed connection, 429 or 5xx; 2 by default. */
  maxRetries?: number;
  /** In place of the global one. */
  fetch?: typeof globalThis.fetch;
}

export interface TrainOptions extends CallOptions {
  /** Calls with the same key and body train once. Default: a new one for each call, the same at every try. */
  idempotencyKey?: string;
}

export class TigerCity {
  readonly models: Models;
  readonly baseURL: string;
  readonly timeout: number;
  readonly maxRetries: number;
  // Truly private, so that no log of this object has the key.
  readonly #options: ClientOptions;
  readonly #settings: Settings;

  constructor(options: ClientOptions = {}) {
    this.#options = options;
    const apiKey = checkedKey(options.apiKey ?? variable('TIGER_API_KEY'));
    this.baseURL = checkedURL(options.baseURL ?? (variable('TIGER_BASE_URL') || DEFAULT_BASE_URL));
    this.timeout = checkedNumber('timeout', options.timeout ?? DEFAULT_TIMEOUT_MS);
    this.maxRetries = checkedNumber('maxRetries', options.maxRetries ?? 2);
    const { baseURL, timeout, maxRetries } = this;
    // Browsers want `fetch` called on nothing.
    const fetch: Settings['fetch'] = (input, init) => (options.fetch ?? globalThis.fetch)(input, init);
    this.#settings = { apiKey, baseURL, timeout, maxRetries, fetch };
    this.models = new Models(this.#settings);
  }

  get apiKey(): string {
    return this.#settings.apiKey;
  }

  /** A client with other options. */
  withOptions(options: ClientOptions): TigerCity {
    return new TigerCity({ ...this.#options, ...options });
  }

  /** Generates one or (`n`) several responses to a conversation. */
  generate(params: GenerateParams & { stream: true }, options?: CallOptions): Promise<GenerateStream>;
  generate(params: GenerateParams & { stream?: false }, options?: CallOptions): Promise<GenerateResponse>;
  async generate(params: GenerateParams & { stream?: boolean }, options?: CallOptions): Promise<GenerateResponse | GenerateStream> {
    if (params.stream) return await this.generateStream(params, options);
    return await json(this.#settings, { method: 'POST', path: '/v1/generate_response', body: params, ...options });
  }

  /** The response while it is made. */
  async generateStream(params: GenerateParams, options?: CallOptions): Promise<GenerateStream> {
    const body = { ...params, stream: true };
    return new GenerateStream(await open(this.#settings, { method: 'POST', path: '/v1/generate_response', body, ...options }));
  }

  /** Trains one's own model on responses with rewards. Tries of one call train once, and so do calls with one `idempotencyKey`. */
  train(params: TrainParams & { stream: true }, options?: TrainOptions): Promise<TrainStream>;
  train(params: TrainParams & { stream?: false }, options?: TrainOptions): Promise<TrainResponse>;
  async train(params: TrainParams & { stream?: boolean }, options?: TrainOptions): Promise<TrainResponse | TrainStream> {
    if (params.stream) return await this.trainStream(params, options);
    return await json(this.#settings, training(params, options));
  }

  /** The same with progress. */
  async trainStream(params: TrainParams, options?: TrainOptions): Promise<TrainStream> {
    return trainStream(await open(this.#settings, training({ ...params, stream: true }, options)));
  }
}

function training(body: unknown, { idempotencyKey = randomKey(), signal }: TrainOptions = {}): Call {
  return { method: 'POST', path: '/v1/train', body, headers: { 'idempotency-key': idempotencyKey }, signal };
}

function variable(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.[name];
}

function checkedKey(key: string | undefined): string {
  if (!key) throw new TigerCityError('no API key: set TIGER_API_KEY (`tiger keys create NAME` makes one) or pass `apiKey`');
  if (!/^[\x21-\x7e]+$/.test(key)) throw new TigerCityError('`apiKey` has characters that no key has; was more copied than the key?');
  return key;
}

function checkedURL(text: string): string {
  if (!/^https?:\/\/[^/]/.test(text) || !URL.canParse(text)) {
    throw new TigerCityError(`\`baseURL\` must begin with http:// or https:// and name a host, as in ${DEFAULT_BASE_URL}; it is ${JSON.stringify(text)}`);
  }
  return text.replace(/\/+$/, '').replace(/\/v1$/, '').replace(/\/+$/, '');
}

function checkedNumber(name: string, value: number): number {
  if (!(value >= 0)) throw new TigerCityError(`\`${name}\` must be 0 or more; it is ${value}`);
  return value;
}
