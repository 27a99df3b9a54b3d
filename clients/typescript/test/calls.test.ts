// Tries, headers, errors and options, over a `fetch` that answers from a list.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import * as tiger from 'tigercity';
import { retryAfterS } from '../dist/errors.js';
import { pauseMs } from '../dist/transport.js';
import { World } from './fake.js';

type Answer = () => Response;

const MESSAGES: tiger.Message[] = [{ role: 'user', content: '?' }];
const DONE = { id: 'id_1', message: { role: 'assistant', content: 'Hi' } };

const ok = (body: unknown = DONE): Answer => () => Response.json(body);
const failure = (status: number, code = 'some_code', headers: Record<string, string> = { 'retry-after': '0' }): Answer => () =>
  Response.json({ error: { type: 'some_type', code, message: 'what to do', param: 'field', request_id: 'req_1' } }, { status, headers });
const refused = (code: string): Answer => () => {
  throw new TypeError('fetch failed', { cause: Object.assign(new Error('connect'), { code }) });
};

const generate = (client: tiger.TigerCity) => client.generate({ model: 'm', messages: MESSAGES });
const train = (client: tiger.TigerCity) => client.train({ model: 'm', messages: MESSAGES, responses: [{ content: 'a', reward: 1 }] });
const create = (client: tiger.TigerCity) => client.models.create({ name: 'M', description: '', parent_model: 'p' });
const rollback = (client: tiger.TigerCity) => client.models.rollback('m', 0);

// Call, first answer, whether there is a second try.
const RETRIES: [(client: tiger.TigerCity) => Promise<unknown>, Answer, boolean][] = [
  [generate, failure(500), true],
  [generate, failure(502), true],
  [generate, failure(503, 'draining'), true],
  [generate, failure(503, 'not_downloaded'), false],
  [generate, failure(429), true],
  [generate, failure(429, 'rate_limited', { 'retry-after': '3600' }), false],
  [generate, failure(422), false],
  [generate, failure(401), false],
  [generate, failure(404), false],
  [generate, failure(409), false],
  [generate, refused('ECONNREFUSED'), true],
  [generate, refused('ECONNRESET'), true],
  [train, failure(500), true],
  [train, refused('ECONNRESET'), true],
  [train, failure(409, 'idempotency_in_flight'), true],
  [train, failure(409, 'revision_conflict'), false],
  // What is not safe to repeat is repeated only where nothing was done.
  [create, failure(500), false],
  [create, refused('ECONNRESET'), false],
  [create, refused('ECONNREFUSED'), true],
  [create, failure(429), true],
  [create, failure(503, 'starting'), true],
  [rollback, failure(500), false],
  [rollback, refused('UND_ERR_CONNECT_TIMEOUT'), true],
];

for (const [number, [call, first, again]] of RETRIES.entries()) {
  test(`tries, line ${number}`, async () => {
    const world = new World([first, ok()]);
    if (again) assert.deepEqual(await call(world.client()), DONE);
    else await assert.rejects(call(world.client()), tiger.TigerCityError);
    assert.equal(world.sent.length, again ? 2 : 1);
  });
}

test('opening a stream is tried again', async () => {
  const world = new World([failure(429), () => new Response('{"type":"stop","id":"gen_1"}')]);
  assert.equal((await (await world.client().generateStream({ model: 'm', messages: MESSAGES })).final()).id, 'gen_1');
  assert.deepEqual(world.sent.map(({ body }) => (body as { stream: boolean }).stream), [true, true]);
});

test('Retry-After is honoured with jitter, pauses grow', () => {
  const call = { method: 'GET', path: '/' };
  const busy = new tiger.RateLimitError(429, {}, 7);
  assert.equal(pauseMs(busy, call, 0, () => 0), 7000);
  assert.equal(pauseMs(busy, call, 0, () => 1), 8750);
  assert.equal(pauseMs(new tiger.RateLimitError(429, {}, 61), call, 0), undefined);
  const broken = new tiger.InternalServerError(500, {});
  assert.deepEqual([0, 1, 2, 3, 4, 5].map((attempt) => pauseMs(broken, call, attempt, () => 0)), [500, 1000, 2000, 4000, 8000, 8000]);
  assert.equal(pauseMs(broken, call, 0, () => 1), 375);
});

test('Retry-After may be a date', () => {
  const seconds = retryAfterS(new Date(Date.now() + 30_000).toUTCString());
  assert.ok(seconds !== undefined && seconds > 28 && seconds <= 30);
  assert.equal(retryAfterS('Wed, 21 Oct 2015 07:28:00 GMT'), 0);
  assert.equal(retryAfterS('1.5'), 1.5);
  assert.deepEqual([null, 'soon', 'nan', '-1', ''].map(retryAfterS), Array(5).fill(undefined));
});

test('tries are counted', async () => {
  for (const [options, requests] of [[{}, 3], [{ maxRetries: 0 }, 1], [{ maxRetries: 1 }, 2]] as const) {
    const world = new World(Array<Answer>(9).fill(failure(500)));
    await assert.rejects(generate(world.client(options)), tiger.InternalServerError);
    assert.equal(world.sent.length, requests);
  }
});

test('one idempotency key a call', async () => {
  const world = new World([failure(500), refused('ECONNRESET'), ok(), ok(), ok()]);
  const client = world.client();
  await train(client);
  await train(client);
  await client.train({ model: 'm', batch: [] }, { idempotencyKey: 'mine' });
  const keys = world.sent.map(({ headers }) => headers.get('idempotency-key'));
  assert.match(keys[0] ?? '', /^[0-9a-f]{32}$/);
  assert.deepEqual(keys.slice(1, 3), [keys[0], keys[0]]);
  assert.notEqual(keys[3], keys[0]);
  assert.equal(keys[4], 'mine');
});

test('what is sent', async () => {
  const world = new World([ok()]);
  await world.client().generate({ model: 'm', messages: MESSAGES, temperature: 0, top_k: undefined, stop: ['a'] });
  const [sent] = world.sent;
  assert.equal(sent?.url, 'http://tiger.test/v1/generate_response');
  assert.equal(sent?.headers.get('authorization'), 'Bearer k');
  assert.equal(sent?.headers.get('user-agent'), `tigercity-typescript/${tiger.VERSION}`);
  assert.deepEqual(sent?.body, { model: 'm', messages: MESSAGES, temperature: 0, stop: ['a'] });
});

test('names are encoded', async () => {
  const world = new World([ok()]);
  await world.client().models.get('My Model/ä');
  assert.equal(world.sent[0]?.url, 'http://tiger.test/v1/models/My%20Model%2F%C3%A4');
});

test('a model without a name is no path', async () => {
  const { models } = new World().client();
  for (const name of ['', undefined, null] as string[]) await assert.rejects(models.delete(name), /`model` must be the id or name/);
});

test('no log has the key', () => {
  const client = new World().client({ apiKey: 'secret' });
  assert.doesNotMatch(inspect(client, { depth: 9 }) + JSON.stringify(client), /secret/);
  assert.equal(client.apiKey, 'secret');
});

test('revisions come page by page', async () => {
  const page = (...numbers: number[]) => ok(numbers.map((revision) => ({ revision })));
  const all = new World([page(5, 4), page(3, 2, 1), page(0)]);
  assert.deepEqual((await all.client().models.revisions('m')).map(({ revision }) => revision), [5, 4, 3, 2, 1, 0]);
  assert.deepEqual(all.sent.map(({ url }) => new URL(url).search), ['', '?before=4', '?before=1']);
  const some = new World([page(9, 8), page(7)]);
  assert.deepEqual((await some.client().models.revisions('m', { limit: 3, before: 10 })).map(({ revision }) => revision), [9, 8, 7]);
  assert.deepEqual(some.sent.map(({ url }) => new URL(url).search), ['?limit=3&before=10', '?limit=1&before=8']);
});

test('errors by status', async () => {
  const kinds: [number, typeof tiger.APIStatusError][] = [
    [400, tiger.BadRequestError],
    [401, tiger.AuthenticationError],
    [403, tiger.PermissionDeniedError],
    [404, tiger.NotFoundError],
    [409, tiger.ConflictError],
    [413, tiger.APIStatusError],
    [422, tiger.UnprocessableEntityError],
    [429, tiger.RateLimitError],
    [500, tiger.InternalServerError],
    [503, tiger.InternalServerError],
  ];
  for (const [status, kind] of kinds) {
    const client = new World([failure(status, 'some_code', { 'retry-after': '9' })]).client({ maxRetries: 0 });
    await assert.rejects(generate(client), (error) => {
      assert.ok(error instanceof tiger.APIStatusError);
      assert.equal(error.constructor, kind);
      assert.equal(error.name, kind.name);
      const { code, param, requestId, retryAfter, message } = error;
      const told = { status: error.status, code, param, requestId, retryAfter, message };
      assert.deepEqual(told, { status, code: 'some_code', param: 'field', requestId: 'req_1', retryAfter: 9, message: 'what to do' });
      return true;
    });
  }
});

test('an error of something else', async () => {
  for (const body of ['<html>bad gateway</html>', '[]', '{"error": "text"}', 'null', '']) {
    const answer = () => new Response(body, { status: 502, headers: { 'x-request-id': 'req_9' } });
    await assert.rejects(generate(new World([answer]).client({ maxRetries: 0 })), (error) => {
      return error instanceof tiger.InternalServerError && /base URL/.test(error.message) && error.requestId === 'req_9';
    });
  }
  await assert.rejects(generate(new World([() => new Response('<html>')]).client()), tiger.UnexpectedAnswerError);
});

test('no answer', async () => {
  const client = new World([refused('ECONNREFUSED')]).client({ maxRetries: 0 });
  await assert.rejects(generate(client), (error) => {
    return error instanceof tiger.APIConnectionError && /cannot reach http:\/\/tiger.test: ECONNREFUSED/.test(error.message) && !error.requestId;
  });
});

/** A `fetch` that answers nothing, or a body without end. */
const endless = (head: boolean): typeof globalThis.fetch => (_, init) =>
  new Promise((resolve, reject) => {
    const ended = () => reject(new DOMException('aborted', 'AbortError'));
    init?.signal?.addEventListener('abort', ended);
    const body = new ReadableStream({ start: (body) => init?.signal?.addEventListener('abort', () => body.error(new DOMException('aborted', 'AbortError'))) });
    if (head) resolve(new Response(body));
  });

test('a timeout, before the answer and within it', async () => {
  for (const head of [false, true]) {
    const client = new World().client({ fetch: endless(head), timeout: 20, maxRetries: 0 });
    await assert.rejects(generate(client), tiger.APITimeoutError);
  }
  const client = new World().client({ fetch: endless(true), timeout: 20, maxRetries: 0 });
  const stream = await client.generateStream({ model: 'm', messages: MESSAGES });
  await assert.rejects(stream.final(), tiger.APITimeoutError);
});

test('a slow answer has time for as long as it comes', async () => {
  const slowly: typeof globalThis.fetch = async (_, init) => {
    const text = new TextEncoder().encode('[{"id":"m"}]');
    let at = 0;
    const pull = async (body: ReadableStreamDefaultController<Uint8Array>) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (at < text.length) body.enqueue(text.slice(at, ++at));
      else body.close();
    };
    const start = (body: ReadableStreamDefaultController<Uint8Array>) =>
      init?.signal?.addEventListener('abort', () => body.error(new DOMException('aborted', 'AbortError')));
    return new Response(new ReadableStream({ start, pull }));
  };
  assert.deepEqual(await new World().client({ fetch: slowly, timeout: 150, maxRetries: 0 }).models.list(), [{ id: 'm' }]);
});

test('a signal ends a call, a stream and a pause', async () => {
  const expected = (error: unknown) => error instanceof tiger.APIAbortError && error.cause === 'enough';
  for (const fetch of [endless(false), endless(true), new World(Array<Answer>(9).fill(failure(429, 'c', { 'retry-after': '50' }))).fetch]) {
    const controller = new AbortController();
    setTimeout(() => controller.abort('enough'), 20);
    await assert.rejects(new World().client({ fetch }).generate({ model: 'm', messages: MESSAGES }, { signal: controller.signal }), expected);
  }
  const controller = new AbortController();
  const { signal } = controller;
  const stream = await new World().client({ fetch: endless(true) }).generateStream({ model: 'm', messages: MESSAGES }, { signal });
  setTimeout(() => controller.abort('enough'), 20);
  await assert.rejects(stream.final(), expected);
  const unsent = new World([ok()]);
  await assert.rejects(unsent.client().models.list({ signal }), expected);
  assert.equal(unsent.sent.length, 0);
});

test('options', async () => {
  const world = new World([ok(), ok()]);
  const client = world.client({ timeout: 3000 });
  const other = client.withOptions({ timeout: Infinity, maxRetries: 5, apiKey: 'other', baseURL: 'https://elsewhere.test/v1/' });
  await generate(client);
  await generate(other);
  assert.deepEqual([client.timeout, client.maxRetries, other.timeout, other.maxRetries], [3000, 2, Infinity, 5]);
  assert.deepEqual(world.sent.map(({ headers }) => headers.get('authorization')), ['Bearer k', 'Bearer other']);
  assert.equal(world.sent[1]?.url, 'https://elsewhere.test/v1/generate_response');
});

test('what cannot be used is refused at once', () => {
  const { TIGER_API_KEY, TIGER_BASE_URL } = process.env;
  try {
    delete process.env.TIGER_API_KEY;
    process.env.TIGER_BASE_URL = 'http://there.test/';
    assert.throws(() => new tiger.TigerCity(), /TIGER_API_KEY/);
    process.env.TIGER_API_KEY = 'from-there';
    assert.deepEqual([new tiger.TigerCity().apiKey, new tiger.TigerCity().baseURL], ['from-there', 'http://there.test']);
    delete process.env.TIGER_BASE_URL;
    assert.equal(new tiger.TigerCity().baseURL, 'http://localhost:45678');
    assert.throws(() => new tiger.TigerCity({ apiKey: 'two words' }), /apiKey/);
    for (const baseURL of ['localhost:45678', 'ftp://x', 'http://']) assert.throws(() => new tiger.TigerCity({ baseURL }), /baseURL/);
    assert.throws(() => new tiger.TigerCity({ maxRetries: -1 }), /maxRetries/);
    assert.throws(() => new tiger.TigerCity({ timeout: NaN }), /timeout/);
  } finally {
    if (TIGER_API_KEY) process.env.TIGER_API_KEY = TIGER_API_KEY;
    if (TIGER_BASE_URL) process.env.TIGER_BASE_URL = TIGER_BASE_URL;
  }
});
