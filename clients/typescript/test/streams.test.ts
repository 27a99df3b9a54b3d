// The recorded streams, shared with the Python package, cut at every byte.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InternalServerError, StreamInterruptedError, UnexpectedAnswerError } from 'tigercity';
import { Pieces, type Recorded, STREAMS, World } from './fake.js';

const MESSAGES = [{ role: 'user' as const, content: '?' }];

async function open(stream: Recorded, pieces: Uint8Array[]) {
  const client = new World([() => new Pieces(pieces).response()]).client();
  if (stream.kind === 'train') return await client.trainStream({ model: 'm', messages: MESSAGES, responses: [] });
  if (stream.kind === 'evaluate') return await client.models.evaluateStream('m', { prompts: [] });
  if (stream.kind === 'create') return await client.models.createStream({ name: 'M', description: '', parent_model: 'p' });
  return await client.generateStream({ model: 'm', messages: MESSAGES });
}

/** `value` without a newer server's fields. */
function known(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (key, item: unknown) => (key.startsWith('later_') ? undefined : item)));
}

async function check(recorded: Recorded, pieces: Uint8Array[], at: string): Promise<void> {
  const stream = await open(recorded, pieces);
  const chunks: unknown[] = [];
  const run = async () => {
    for await (const chunk of stream) chunks.push(chunk);
  };
  if (recorded.error) {
    const { code, request_id } = recorded.error;
    await assert.rejects(run(), (error) => error instanceof InternalServerError && error.code === code && error.requestId === request_id, at);
  } else if (recorded.interrupted) {
    await assert.rejects(run(), StreamInterruptedError, at);
  } else {
    await run();
    assert.deepEqual(known(await stream.final()), recorded.final, at);
  }
  assert.deepEqual(
    known(chunks),
    known(recorded.objects.filter(({ type }) => type !== 'error' && !type.startsWith('later_'))),
    at,
  );
}

for (const recorded of STREAMS) {
  const bytes = new TextEncoder().encode(recorded.text);

  test(`${recorded.name}, cut in two at every byte`, async () => {
    for (let at = 0; at <= bytes.length; at++) await check(recorded, [bytes.slice(0, at), bytes.slice(at)], `cut at ${at}`);
  });

  test(`${recorded.name}, every byte alone`, async () => {
    await check(recorded, Array.from(bytes, (byte) => Uint8Array.of(byte)), 'every byte alone');
  });
}

function named(start: string): { recorded: Recorded; bytes: Uint8Array } {
  const recorded = STREAMS.find(({ name }) => name.startsWith(start));
  assert.ok(recorded);
  return { recorded, bytes: new TextEncoder().encode(recorded.text) };
}

const generate = async (body: Pieces) => await new World([() => body.response()]).client().generateStream({ model: 'm', messages: MESSAGES });

async function joined(pieces: AsyncIterable<string>): Promise<string> {
  let text = '';
  for await (const piece of pieces) text += piece;
  return text;
}

test('text is the content, of the first response', async () => {
  for (const start of ['characters', 'two responses']) {
    const { recorded, bytes } = named(start);
    const stream = await generate(new Pieces([bytes]));
    assert.equal(await joined(stream.text), (recorded.final as { message: { content: string } }).message.content);
    assert.equal((await stream.final()).id, recorded.final?.id);
  }
});

test('a broken connection is an interrupted stream', async () => {
  const { recorded, bytes } = named('characters');
  const broken = await generate(new Pieces([bytes.slice(0, 100)], true));
  await assert.rejects(broken.final(), (error) => error instanceof StreamInterruptedError && /connection reset/.test(error.message));
  // After the last chunk nothing is lost.
  const whole = await generate(new Pieces([bytes, new TextEncoder().encode('\n')], true));
  assert.equal((await whole.final()).id, recorded.final?.id);
});

test('leaving the loop hangs up', async () => {
  const { recorded } = named('characters');
  const lines = recorded.text.split('\n').map((line) => new TextEncoder().encode(`${line}\n`));
  const world = new World([() => new Pieces(lines).response()]);
  const stream = await world.client().generateStream({ model: 'm', messages: MESSAGES });
  for await (const _ of stream) break;
  assert.equal(world.sent[0]?.init.signal?.aborted, true);
  await assert.rejects(stream.final(), StreamInterruptedError);
});

test('close() hangs up', async () => {
  const world = new World([() => new Response(new ReadableStream())]);
  const stream = await world.client().generateStream({ model: 'm', messages: MESSAGES });
  // A `fetch` of one's own may not notice the signal in its body; the real one does (see server.test.ts).
  stream.close();
  assert.equal(world.sent[0]?.init.signal?.aborted, true);
  await assert.rejects(stream.final(), StreamInterruptedError);
});

test('what is no JSON is an error', async () => {
  const stream = await generate(new Pieces([new TextEncoder().encode('<html>\n')]));
  await assert.rejects(stream.final(), UnexpectedAnswerError);
});
