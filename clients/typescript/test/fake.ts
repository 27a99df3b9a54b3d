// A `fetch` that answers from a list, and the recorded streams that the Python package reads too.
import { readFileSync } from 'node:fs';
import { TigerCity, type ClientOptions } from 'tigercity';

export interface Recorded {
  name: string;
  kind: 'generate' | 'train' | 'evaluate' | 'create';
  text: string;
  objects: { type: string }[];
  final?: Record<string, unknown>;
  error?: { code: string; request_id: string };
  interrupted?: true;
}

// Tests are run from the package's folder.
export const STREAMS = (JSON.parse(readFileSync('../recorded/streams.json', 'utf8')) as { streams: Recorded[] }).streams;

/** A body that comes in pieces, and perhaps breaks off. */
export class Pieces {
  cancelled = false;

  constructor(
    private readonly pieces: Uint8Array[],
    private readonly breaks = false,
  ) {}

  response(): Response {
    let next = 0;
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        const piece = this.pieces[next++];
        if (piece) controller.enqueue(piece);
        else if (this.breaks) controller.error(new TypeError('connection reset'));
        else controller.close();
      },
    });
    return new Response(body);
  }
}

export interface Sent {
  url: string;
  init: RequestInit;
  headers: Headers;
  body: unknown;
}

export class World {
  readonly sent: Sent[] = [];

  constructor(readonly answers: (() => Response | Promise<Response>)[] = []) {}

  readonly fetch: typeof globalThis.fetch = async (input, init = {}) => {
    const body = typeof init.body === 'string' ? (JSON.parse(init.body) as unknown) : undefined;
    this.sent.push({ url: String(input), init, headers: new Headers(init.headers), body });
    const answer = this.answers.shift();
    if (!answer) throw new Error('one request more than there are answers');
    return await answer();
  };

  client(options: ClientOptions = {}): TigerCity {
    return new TigerCity({ apiKey: 'k', baseURL: 'http://tiger.test', fetch: this.fetch, ...options });
  }
}
