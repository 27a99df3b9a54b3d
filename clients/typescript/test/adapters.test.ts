// Adapters, imported and exported: over a `fetch` that answers from a list, over Node's own, and against the real program.
import assert from 'node:assert/strict';
import { createReadStream, mkdtempSync, openAsBlob, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import * as tiger from 'tigercity';
import { Pieces, World } from './fake.js';

const FILES = ['adapter_config.json', 'adapter_model.safetensors'] as const;
const QUESTION: tiger.Message[] = [{ role: 'user', content: 'What is the capital of France?' }];
const WEIGHTS = new TextEncoder().encode('weights');
const CONFIG = new TextEncoder().encode('{}');
const folder = mkdtempSync(join(tmpdir(), 'tiger-adapters-'));
const MODEL = { id: 'm', name: 'M' };

after(() => rmSync(folder, { recursive: true }));

/** A server that reads what it is sent before it answers from a list. */
class Listener {
  readonly sent: { headers: IncomingHttpHeaders; parts: Record<string, string> }[] = [];
  private readonly server: Server;

  constructor(private readonly answers: ((response: ServerResponse) => void)[]) {
    this.server = createServer((request, response) => {
      const pieces: Buffer[] = [];
      request.on('data', (piece: Buffer) => pieces.push(piece));
      request.on('end', () => {
        void (async () => {
          const headers = { 'content-type': request.headers['content-type'] ?? '' };
          const form = await new Response(Buffer.concat(pieces), { headers }).formData();
          const parts: Record<string, string> = {};
          for (const [name, value] of form.entries()) parts[name] = typeof value === 'string' ? value : await value.text();
          this.sent.push({ headers: request.headers, parts });
          this.answers.shift()?.(response);
        })();
      });
    });
  }

  async use(work: (client: tiger.TigerCity) => Promise<unknown>): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    try {
      await work(new tiger.TigerCity({ apiKey: 'k', baseURL: `http://127.0.0.1:${(this.server.address() as AddressInfo).port}` }));
    } finally {
      this.server.closeAllConnections();
      this.server.close();
    }
  }
}

const made = (response: ServerResponse) => void response.writeHead(201, { 'content-type': 'application/json' }).end(JSON.stringify(MODEL));
const failing = (status: number) => (response: ServerResponse) =>
  void response.writeHead(status, { 'retry-after': '0' }).end(JSON.stringify({ error: { message: 'what to do' } }));
const cut = (response: ServerResponse) => void response.destroy();

async function* once(...pieces: string[]): AsyncGenerator<Uint8Array> {
  for (const piece of pieces) yield new TextEncoder().encode(piece);
}

const streamed = (pieces: AsyncGenerator<Uint8Array>): ReadableStream<Uint8Array> =>
  new ReadableStream({ pull: async (out) => void (await pieces.next().then(({ done, value }) => (done ? out.close() : out.enqueue(value)))) });

const importing = (client: tiger.TigerCity, adapter_model: tiger.FileContent, more: object = {}) =>
  client.models.importAdapter({ name: 'Ärger', parent_model: 'b', adapter_config: CONFIG, adapter_model, ...more });

test('what is sent', async () => {
  writeFileSync(join(folder, 'weights'), WEIGHTS);
  const listener = new Listener(Array(7).fill(made));
  const parts = { name: 'Ärger', parent_model: 'b', adapter_config: '{}', adapter_model: 'weights' };
  await listener.use(async (client) => {
    assert.deepEqual(await importing(client, WEIGHTS, { description: 'for a test' }), MODEL);
    await importing(client, WEIGHTS.buffer, { description: undefined });
    await importing(client, new Blob([WEIGHTS]));
    await importing(client, await openAsBlob(join(folder, 'weights')));
    await importing(client, createReadStream(join(folder, 'weights')));
    await importing(client, streamed(once('wei', 'ghts')));
    await importing(client, once('wei', 'ghts'), { adapter_config: new Blob([CONFIG]) });
  });
  assert.deepEqual(listener.sent.map((sent) => sent.parts), [{ ...parts, description: 'for a test' }, ...Array<unknown>(6).fill(parts)]);
  assert.deepEqual(listener.sent.map(({ headers }) => headers['transfer-encoding']), [...Array<undefined>(4), ...Array<string>(3).fill('chunked')]);
});

// How the weights are given, the first answer, and whether there is a second try.
const TRIES: [() => tiger.FileContent, (response: ServerResponse) => void, boolean][] = [
  [() => WEIGHTS, failing(429), true],
  [() => new Blob([WEIGHTS]), failing(503), true],
  // The first may have made the model.
  [() => WEIGHTS, failing(500), false],
  [() => WEIGHTS, cut, false],
  // What was read is gone.
  [() => once('weights'), failing(429), false],
  [() => streamed(once('weights')), failing(503), false],
];

for (const [number, [given, first, again]] of TRIES.entries()) {
  test(`a body is sent again whole or not at all, line ${number}`, async () => {
    const listener = new Listener([first, made]);
    await listener.use(async (client) => {
      if (again) await importing(client, given());
      else await assert.rejects(importing(client, given()), tiger.TigerCityError);
    });
    assert.deepEqual(listener.sent.map(({ parts }) => parts['adapter_model']), Array(again ? 2 : 1).fill('weights'));
  });
}

test('a stream that was not read yet is sent later', async () => {
  const world = new World();
  let bodies = 0;
  let text = '';
  const fetch: typeof globalThis.fetch = async (_, init) => {
    if (bodies++ === 0) {
      // As a connection that fails does.
      await (init?.body as ReadableStream).cancel();
      throw new TypeError('fetch failed', { cause: { code: 'ECONNREFUSED' } });
    }
    text = await new Response(init?.body).text();
    return Response.json(MODEL);
  };
  await importing(world.client({ fetch }), once('weights'));
  assert.equal(bodies, 2);
  assert.match(text, /\r\n\r\nweights\r\n--/);
});

test('a connection that is never made reads no stream', async () => {
  const nowhere = new tiger.TigerCity({ apiKey: 'k', baseURL: 'http://127.0.0.1:9', maxRetries: 1 });
  let read = false;
  const stream = (async function* () {
    read = true;
    yield WEIGHTS;
  })();
  await assert.rejects(importing(nowhere, stream), tiger.APIConnectionError);
  assert.equal(read, false);
});

test('what cannot be sent is refused at once', async () => {
  const world = new World();
  for (const [wrong, field] of [[{ adapter_config: '{}' }, /adapter_config/], [{ adapter_model: null }, /adapter_model/], [{ name: 3 }, /name/], [{ rank: '3' }, /rank/]] as const) {
    await assert.rejects(importing(world.client(), WEIGHTS, wrong), (error) => error instanceof tiger.TigerCityError && field.test(error.message));
  }
  assert.equal(world.sent.length, 0);
});

test('a signal ends an upload', async () => {
  const listener = new Listener([]);
  await listener.use(async (client) => {
    const controller = new AbortController();
    let read = 0;
    let ended = false;
    const endless = (async function* () {
      try {
        for (;;) {
          if (++read === 5) controller.abort('enough');
          yield WEIGHTS;
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      } finally {
        ended = true;
      }
    })();
    const params = { name: 'M', parent_model: 'b', adapter_config: CONFIG, adapter_model: endless };
    await assert.rejects(client.models.importAdapter(params, { signal: controller.signal }), tiger.APIAbortError);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual([ended, read < 8], [true, true]);
  });
});

test('leaving a download hangs up, a broken one says so', async () => {
  const world = new World([() => new Pieces([CONFIG, WEIGHTS]).response(), () => new Pieces([CONFIG], true).response()]);
  for await (const _ of await world.client().models.adapterStream('m')) break;
  assert.equal(world.sent[0]?.init.signal?.aborted, true);
  const broken = await world.client().models.adapterStream('m', 'adapter_config.json', { revision: 2 });
  assert.equal(world.sent[1]?.url, 'http://tiger.test/v1/models/m/adapter/adapter_config.json?revision=2');
  await assert.rejects(writeFile(join(folder, 'broken'), broken), tiger.StreamInterruptedError);
});

// Against the real program.
const client = new tiger.TigerCity();
let model = '';

before(async () => {
  model = (await client.models.create({ name: 'Exported by TS', description: '', parent_model: 'tiger-nano' })).id;
  const sampled = await client.generate({ model, messages: QUESTION, n: 8, seed: 3 });
  const responses = (sampled.responses ?? []).map(({ response_id, content }) => ({ response_id, reward: content.length < 30 ? 1 : 0 }));
  assert.ok((await client.train({ model, messages: QUESTION, responses })).updated);
  for (const file of FILES) await writeFile(join(folder, file), await client.models.adapterStream(model, file));
});

after(async () => void (await client.models.delete(model)));

test('an imported adapter is the exported one', async () => {
  assert.deepEqual(new Uint8Array(await readFile(join(folder, FILES[1]))), await client.models.adapter(model));
  const blobs = await Promise.all(FILES.map((file) => openAsBlob(join(folder, file))));
  const streams = FILES.map((file) => createReadStream(join(folder, file)));
  for (const [adapter_config, adapter_model] of [blobs, streams]) {
    const params = { name: 'Back by TS', description: 'from a file', parent_model: 'Tiger-Nano' };
    const back = await client.models.importAdapter({ ...params, adapter_config: adapter_config!, adapter_model: adapter_model! });
    assert.deepEqual([back.description, back.parent_model, back.revision], ['from a file', 'Tiger-Nano', 0]);
    const says = async (model: string) => {
      const { message, logprobs } = await client.generate({ model, messages: QUESTION, seed: 5, logprobs: true });
      return [message, logprobs];
    };
    assert.deepEqual(await says(back.id), await says(model));
    assert.notDeepEqual(await says(back.id), await says('tiger-nano'));
    await client.models.delete(back.id);
  }
});

test('refusals name the file', async () => {
  const [config, weights] = FILES.map((file) => readFileSync(join(folder, file))) as [Buffer, Buffer];
  const [otherConfig, otherWeights] = FILES.map((file) => readFileSync(join('../../golden/peft/patterns', file))) as [Buffer, Buffer];
  const dora = Buffer.from(JSON.stringify({ ...(JSON.parse(config.toString()) as object), use_dora: true }));
  const params = { name: 'Refused', parent_model: 'tiger-nano', adapter_config: config, adapter_model: weights };
  const refused: [Partial<tiger.ImportAdapterParams>, typeof tiger.APIStatusError, string, RegExp][] = [
    [{ adapter_config: dora }, tiger.UnprocessableEntityError, 'adapter_config', /use_dora: true is not supported/],
    [{ adapter_model: weights.subarray(0, -4) }, tiger.UnprocessableEntityError, 'adapter_model', /may be cut/],
    [{ adapter_config: otherConfig, adapter_model: otherWeights }, tiger.UnprocessableEntityError, 'adapter_model', /tensor/],
    [{ parent_model: 'nobody' }, tiger.NotFoundError, 'parent_model', /nobody/],
    [{ parent_model: model }, tiger.UnprocessableEntityError, 'parent_model', /no base model/],
    [{ name: 'Exported by TS' }, tiger.ConflictError, 'name', /Exported by TS/],
  ];
  for (const [wrong, kind, param, message] of refused) {
    await assert.rejects(client.models.importAdapter({ ...params, ...wrong }), (error) => {
      assert.ok(error instanceof kind, String(error));
      assert.match(error.message, message);
      assert.equal(error.param, param);
      return true;
    });
  }
});

test('a large file is not held in memory', async () => {
  const large = join(folder, 'large');
  writeFileSync(large, '');
  truncateSync(large, 256 << 20);
  const params = { name: 'Large', parent_model: 'tiger-nano', adapter_config: CONFIG };
  const before = process.memoryUsage().rss;
  let most = 0;
  const watch = setInterval(() => (most = Math.max(most, process.memoryUsage().rss - before)), 5);
  const wrongKey = client.withOptions({ apiKey: 'tiger_wrong' });
  for (const open of [async () => await openAsBlob(large), async () => createReadStream(large)]) {
    await assert.rejects(client.models.importAdapter({ ...params, adapter_model: await open() }), tiger.UnprocessableEntityError);
    // A wrong key is told at once, while the file is on its way: `fetch` of Node may not see that answer.
    await assert.rejects(wrongKey.models.importAdapter({ ...params, adapter_model: await open() }), (error) => {
      return error instanceof tiger.AuthenticationError || (error instanceof tiger.APIConnectionError && /is the key right/.test(error.message));
    });
  }
  clearInterval(watch);
  assert.ok(most < 128 << 20, `${most >> 20} MiB more`);
});
