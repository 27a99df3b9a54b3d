// `client.models`: one's own models, their revisions and what became of them.
import { createStream, type CreateStream, evaluateStream, type EvaluateStream } from './stream.js';
import { json, open, send, type Settings } from './transport.js';
import type { AdapterFile, CreateModelParams, DeleteModelResponse, EvaluateParams, EvaluateResponse } from './types.js';
import type { ModelInfo, RevisionInfo, UpdateModelParams } from './types.js';

/** Of one call. */
export interface CallOptions {
  /** Ends the call, and the work on the server. */
  signal?: AbortSignal;
}

/** Most revisions that the server gives at once. */
const MAX_PAGE = 1000;

const path = (model: string, rest = ''): string => `/v1/models/${encodeURIComponent(model)}${rest}`;

export class Models {
  constructor(private readonly settings: Settings) {}

  /** Base models first, then one's own, newest first. */
  async list(options?: CallOptions): Promise<ModelInfo[]> {
    return await json(this.settings, { method: 'GET', path: '/v1/models', ...options });
  }

  /** One, by id or name. */
  async get(model: string, options?: CallOptions): Promise<ModelInfo> {
    return await json(this.settings, { method: 'GET', path: path(model), ...options });
  }

  /** A private copy of `parent_model`. */
  create(params: CreateModelParams & { stream: true }, options?: CallOptions): Promise<CreateStream>;
  create(params: CreateModelParams & { stream?: false }, options?: CallOptions): Promise<ModelInfo>;
  async create(params: CreateModelParams & { stream?: boolean }, options?: CallOptions): Promise<ModelInfo | CreateStream> {
    if (params.stream) return await this.createStream(params, options);
    return await json(this.settings, { method: 'POST', path: '/v1/models', body: params, repeatable: false, ...options });
  }

  /** The same with progress. */
  async createStream(params: CreateModelParams, options?: CallOptions): Promise<CreateStream> {
    const body = { ...params, stream: true };
    return createStream(await open(this.settings, { method: 'POST', path: '/v1/models', body, repeatable: false, ...options }));
  }

  /** Changes the description or defaults of one's own model. */
  async update(model: string, params: UpdateModelParams, options?: CallOptions): Promise<ModelInfo> {
    return await json(this.settings, { method: 'PATCH', path: path(model), body: params, ...options });
  }

  /** Deletes one's own model; copies made from it live on. */
  async delete(model: string, options?: CallOptions): Promise<DeleteModelResponse> {
    return await json(this.settings, { method: 'DELETE', path: path(model), repeatable: false, ...options });
  }

  /** Newest first: all, or at most `limit`, or those before revision `before`. Fetches as many pages as it takes. */
  async revisions(model: string, { limit, before, signal }: CallOptions & { limit?: number; before?: number } = {}): Promise<RevisionInfo[]> {
    const found: RevisionInfo[] = [];
    for (;;) {
      const left = limit === undefined ? undefined : limit - found.length;
      if (left !== undefined && left <= 0 && found.length > 0) return found;
      const query = { limit: left === undefined ? undefined : Math.min(left, MAX_PAGE), before };
      // The server may give fewer than asked for; revision 0 is the last of all.
      const page = await json<RevisionInfo[]>(this.settings, { method: 'GET', path: path(model, '/revisions'), query, signal });
      found.push(...page);
      before = page.at(-1)?.revision;
      if (!before) return found;
    }
  }

  /** Makes the weights of `revision` the newest revision. */
  async rollback(model: string, revision: number, options?: CallOptions): Promise<ModelInfo> {
    return await json(this.settings, { method: 'POST', path: path(model, '/rollback'), body: { revision }, repeatable: false, ...options });
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
    return await json(this.settings, { method: 'POST', path: path(model, '/evaluate'), body: params, ...options });
  }

  /** The same with progress. */
  async evaluateStream(model: string, params: EvaluateParams, options?: CallOptions): Promise<EvaluateStream> {
    const body = { ...params, stream: true };
    return evaluateStream(await open(this.settings, { method: 'POST', path: path(model, '/evaluate'), body, ...options }));
  }

  /** One of the adapter's two files as PEFT reads them; of the newest revision if none is named. */
  async adapter(
    model: string,
    file: AdapterFile = 'adapter_model.safetensors',
    { revision, signal }: CallOptions & { revision?: number } = {},
  ): Promise<Uint8Array> {
    return await send(this.settings, { method: 'GET', path: path(model, `/adapter/${encodeURIComponent(file)}`), query: { revision }, signal });
  }
}
