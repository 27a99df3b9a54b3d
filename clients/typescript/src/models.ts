// `client.models`: one's own models, their revisions and what became of them.
import { TigerCityError } from './errors.js';
import { Form } from './form.js';
import { createStream, type CreateStream, evaluateStream, type EvaluateStream, type Source } from './stream.js';
import { type Call, json, open, randomKey, send, type Settings } from './transport.js';
import type { AdapterFile, CreateModelParams, DeleteModelResponse, EvaluateParams, EvaluateResponse } from './types.js';
import type { ImportAdapterParams, ModelInfo, RevisionInfo, UpdateModelParams } from './types.js';

/** Of one call. */
export interface CallOptions {
  /** Ends the call, and the work on the server. */
  signal?: AbortSignal;
}

export interface AdapterOptions extends CallOptions {
  revision?: number;
}

const IMPORT_TEXTS = new Set(['name', 'description', 'parent_model']);

/** Most revisions that the server gives at once. */
const MAX_PAGE = 1000;

function path(model: string, rest = ''): string {
  // An empty one would be another path.
  if (typeof model !== 'string' || !model) throw new TigerCityError(`\`model\` must be the id or name of a model; it is ${JSON.stringify(model)}`);
  return `/v1/models/${encodeURIComponent(model)}${rest}`;
}

export class Models {
  readonly #settings: Settings;

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  /** Base models first, then one's own, newest first. */
  async list(options?: CallOptions): Promise<ModelInfo[]> {
    return await json(this.#settings, { method: 'GET', path: '/v1/models', ...options });
  }

  /** One, by id or name. */
  async get(model: string, options?: CallOptions): Promise<ModelInfo> {
    return await json(this.#settings, { method: 'GET', path: path(model), ...options });
  }

  /** A private copy of `parent_model`. */
  create(params: CreateModelParams & { stream: true }, options?: CallOptions): Promise<CreateStream>;
  create(params: CreateModelParams & { stream?: false }, options?: CallOptions): Promise<ModelInfo>;
  async create(params: CreateModelParams & { stream?: boolean }, options?: CallOptions): Promise<ModelInfo | CreateStream> {
    if (params.stream) return await this.createStream(params, options);
    return await json(this.#settings, { method: 'POST', path: '/v1/models', body: params, repeatable: false, ...options });
  }

  /** The same with progress. */
  async createStream(params: CreateModelParams, options?: CallOptions): Promise<CreateStream> {
    const body = { ...params, stream: true };
    return createStream(await open(this.#settings, { method: 'POST', path: '/v1/models', body, repeatable: false, ...options }));
  }

  /** Changes the description or defaults of one's own model. */
  async update(model: string, params: UpdateModelParams, options?: CallOptions): Promise<ModelInfo> {
    return await json(this.#settings, { method: 'PATCH', path: path(model), body: params, ...options });
  }

  /** Deletes one's own model; copies made from it live on. */
  async delete(model: string, options?: CallOptions): Promise<DeleteModelResponse> {
    return await json(this.#settings, { method: 'DELETE', path: path(model), repeatable: false, ...options });
  }

  /** Newest first: all, or at most `limit`, or those before revision `before`. Fetches as many pages as it takes. */
  async revisions(model: string, { limit, before, signal }: CallOptions & { limit?: number; before?: number } = {}): Promise<RevisionInfo[]> {
    const found: RevisionInfo[] = [];
    for (;;) {
      const left = limit === undefined ? undefined : limit - found.length;
      if (left !== undefined && left <= 0 && found.length > 0) return found;
      const query = { limit: left === undefined ? undefined : Math.min(left, MAX_PAGE), before };
      // The server may give fewer than asked for; revision 0 is the last of all.
      const page = await json<RevisionInfo[]>(this.#settings, { method: 'GET', path: path(model, '/revisions'), query, signal });
      found.push(...page);
      before = page.at(-1)?.revision;
      if (!before) return found;
    }
  }

  /** Makes the weights of `revision` the newest revision. */
  async rollback(model: string, revision: number, options?: CallOptions): Promise<ModelInfo> {
    return await json(this.#settings, { method: 'POST', path: path(model, '/rollback'), body: { revision }, repeatable: false, ...options });
  }

  /** A revision beside its parent, or beside another revision, on given prompts. */
  evaluate(model: string, params: EvaluateParams & { stream: true }, options?: CallOptions): Promise<EvaluateStream>;
  evaluate(model: string, params: EvaluateParams & { stream?: false }, options?: CallOptions): Promise<EvaluateResponse>;
  async evaluate(
    model: string,
    params: EvaluateParams & { stream?: boolean },
    options?: CallOptions,
  ): Promise<EvaluateResponse | EvaluateStream> {
    if (params.stream) return await this.evaluateStream(model, params, options);
    return await json(this.#settings, { method: 'POST', path: path(model, '/evaluate'), body: params, ...options });
  }

  /** The same with progress. */
  async evaluateStream(model: string, params: EvaluateParams, options?: CallOptions): Promise<EvaluateStream> {
    const body = { ...params, stream: true };
    return evaluateStream(await open(this.#settings, { method: 'POST', path: path(model, '/evaluate'), body, ...options }));
  }

  /**
   * A private model from the two files of a LoRA adapter as PEFT writes them. The time of sending counts as waiting for the answer: raise
   * `timeout` for large files on slow lines.
   */
  async importAdapter(params: ImportAdapterParams, options?: CallOptions): Promise<ModelInfo> {
    const { adapter_config, adapter_model, ...rest } = params;
    const texts = Object.fromEntries(Object.entries(rest).filter(([, value]) => value != null));
    // The server refuses it too, but perhaps unheard: before the files are there.
    const unknown = Object.keys(texts).find((name) => !IMPORT_TEXTS.has(name));
    if (unknown) throw new TigerCityError(`\`${unknown}\` is no field of importAdapter`);
    const form = new Form(texts, { adapter_config, adapter_model }, randomKey());
    return await json(this.#settings, { method: 'POST', path: '/v1/adapters', form, repeatable: false, ...options });
  }

  /** One of the adapter's two files as PEFT reads them; of the newest revision if none is named. */
  async adapter(model: string, file?: AdapterFile, options?: AdapterOptions): Promise<Uint8Array> {
    return await send(this.#settings, adapterCall(model, file, options));
  }

  /** The same, piece by piece: for a large file, which is never whole in memory then. Leaving the loop hangs up. */
  async adapterStream(model: string, file?: AdapterFile, options?: AdapterOptions): Promise<AsyncIterable<Uint8Array>> {
    return hungUp(await open(this.#settings, adapterCall(model, file, options)));
  }
}

async function* hungUp({ bytes, cancel }: Source): AsyncGenerator<Uint8Array> {
  try {
    yield* bytes;
  } finally {
    cancel();
  }
}

function adapterCall(model: string, file: AdapterFile = 'adapter_model.safetensors', { revision, signal }: AdapterOptions = {}): Call {
  return { method: 'GET', path: path(model, `/adapter/${encodeURIComponent(file)}`), query: { revision }, signal };
}
