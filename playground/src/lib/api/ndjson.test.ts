// The reader gives the same objects wherever the network cuts the bytes.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { lines, objects } from './ndjson';

const SENT = [{ type: 'info', message: 'Loading — 加载 🐯' }, { type: 'delta', delta: 'a\nb "ü"' }, { type: 'stop', stop_reason: 'end_turn' }];
const BYTES = new TextEncoder().encode(SENT.map((chunk) => JSON.stringify(chunk)).join('\n') + '\n');

function streamed(pieces: Uint8Array[], onCancel = () => {}): ReadableStream<Uint8Array> {
  let next = 0;
  return new ReadableStream({
    pull(controller) {
      const piece = pieces[next++];
      if (piece) controller.enqueue(piece);
      else controller.close();
    },
    cancel: onCancel,
  });
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

test('cut in two at every byte', async () => {
  for (let at = 0; at <= BYTES.length; at++) {
    expect(await all(objects(streamed([BYTES.slice(0, at), BYTES.slice(at)])))).toEqual(SENT);
  }
});

// The same streams as the client packages' tests read.
const RECORDED = JSON.parse(readFileSync(join(import.meta.dirname, '../../../../clients/recorded/streams.json'), 'utf8')) as {
  streams: { name: string; text: string; objects: unknown[]; interrupted?: boolean }[];
};

test.each(RECORDED.streams.filter(({ interrupted }) => !interrupted))('recorded, cut at every byte: $name', async ({ text, objects: sent }) => {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at <= bytes.length; at++) {
    expect(await all(objects(streamed([bytes.slice(0, at), bytes.slice(at)])))).toEqual(sent);
  }
});

test('every byte alone', async () => {
  expect(await all(objects(streamed([...BYTES].map((byte) => Uint8Array.of(byte)))))).toEqual(SENT);
});

test('empty lines, carriage returns and a last line without its end', async () => {
  const bytes = new TextEncoder().encode('\n{"a":1}\r\n\n{"a":2}');
  expect(await all(objects(streamed([bytes])))).toEqual([{ a: 1 }, { a: 2 }]);
});

test('what is no JSON is an error', async () => {
  await expect(all(objects(streamed([new TextEncoder().encode('{"a":1}\nnonsense\n')])))).rejects.toThrow(SyntaxError);
});

test('leaving the loop cancels the stream', async () => {
  let cancelled = false;
  const endless = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(new TextEncoder().encode('{"a":1}\n')),
    cancel: () => {
      cancelled = true;
    },
  });
  for await (const line of lines(endless)) {
    expect(line).toBe('{"a":1}');
    break;
  }
  expect(cancelled).toBe(true);
});
