// The feed loads all pages once, then only what is new, and nothing while the revision is the same.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Feed } from './feed.svelte';

let newest = 0;
let asked: string[] = [];

vi.mock('../api/client', () => ({
  get: (path: string) => {
    asked.push(path);
    const url = new URL(path, 'http://localhost');
    if (!url.pathname.endsWith('/revisions')) return Promise.resolve({ id: 'm', revision: newest, status: 'ready', read_only: false });
    const limit = Number(url.searchParams.get('limit'));
    const before = Number(url.searchParams.get('before') ?? newest + 1);
    const count = Math.min(limit, before);
    return Promise.resolve(Array.from({ length: count }, (_, at) => ({ revision: before - 1 - at, created: 0, available: true })));
  },
}));

beforeEach(() => {
  vi.useFakeTimers();
  asked = [];
});

afterEach(() => {
  vi.useRealTimers();
});

const numbers = (feed: Feed) => feed.revisions.map((one) => one.revision);
const expected = () => Array.from({ length: newest + 1 }, (_, at) => newest - at);

test('2,345 revisions come in three pages, each once, newest first', async () => {
  newest = 2345;
  const feed = new Feed('m');
  await feed.refresh();
  expect(numbers(feed)).toEqual(expected());
  expect(asked).toHaveLength(4);
});

test('later only what is new is asked for', async () => {
  newest = 3;
  const seen: (number | undefined)[] = [];
  const feed = new Feed('m', (model) => seen.push(model.revision));
  await feed.refresh();
  asked = [];
  await feed.refresh();
  expect(asked).toEqual(['/v1/models/m']);
  newest = 5;
  asked = [];
  await feed.refresh();
  expect(asked).toEqual(['/v1/models/m', '/v1/models/m/revisions?limit=3']);
  expect(numbers(feed)).toEqual(expected());
  expect(seen).toEqual([5]);
});

test('an answer to a change is not overwritten by what was asked before it', async () => {
  newest = 0;
  const feed = new Feed('m');
  await feed.refresh();
  const asking = feed.refresh();
  feed.take({ ...feed.model!, description: 'changed' });
  await asking;
  expect(feed.model?.description).toBe('changed');
  // An answer that tells of a newer revision does not hide it.
  newest = 1;
  feed.take({ ...feed.model!, revision: 1 });
  await feed.refresh();
  expect(numbers(feed)).toEqual([1, 0]);
});

test('it looks every 10 s, every 2 s after a change, and not once it is stopped', async () => {
  newest = 0;
  const feed = new Feed('m');
  const stop = feed.start();
  await vi.advanceTimersByTimeAsync(0);
  asked = [];
  await vi.advanceTimersByTimeAsync(9900);
  expect(asked).toEqual([]);
  newest = 1;
  await vi.advanceTimersByTimeAsync(200);
  expect(numbers(feed)).toEqual([1, 0]);
  asked = [];
  await vi.advanceTimersByTimeAsync(4100);
  expect(asked).toHaveLength(2);
  stop();
  asked = [];
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toEqual([]);
});
