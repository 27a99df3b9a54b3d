import { expect, test } from 'vitest';
import { ApiError } from '../api/client';
import type { Chat, ChatDocument } from '../api/types';
import { Saver, type SaveState } from './saver';

const failure = (status: number) => new ApiError(status, { type: 't', code: 'c', message: 'm' });

/** A server of one conversation, a clock turned by hand. */
function world() {
  let title = 'first';
  const log: string[] = [];
  const states: SaveState['kind'][] = [];
  let timers: { run: () => void; ms: number }[] = [];
  let fail: number | undefined;
  let gate: Promise<void> | undefined;
  const stored = { version: 0, title: '' };
  const answer = async (what: string, document: ChatDocument, version?: number): Promise<Chat> => {
    log.push(`${what} ${document.title}${version === undefined ? '' : ` v${version}`}`);
    await gate;
    if (fail) throw failure(fail);
    if (version !== undefined && version !== stored.version) throw failure(409);
    stored.version++;
    stored.title = document.title;
    return { ...document, id: 'chat_1', version: stored.version, created: 0, updated: 0 };
  };
  const saver = new Saver({
    document: () => ({ title, model: 'm', system: '', settings: {}, nodes: [] }),
    create: (document, keepalive) => answer(keepalive ? 'last create' : 'create', document),
    replace: (_, document, keepalive) => answer(keepalive ? 'last replace' : 'replace', document, document.version),
    onstate: (state) => states.push(state.kind),
    onsaved: () => undefined,
    later(run, ms) {
      const timer = { run, ms };
      timers.push(timer);
      return () => (timers = timers.filter((other) => other !== timer));
    },
  });
  return {
    saver,
    log,
    states,
    stored,
    change(to: string) {
      title = to;
      saver.touch();
    },
    failWith: (status?: number) => (fail = status),
    hold() {
      let open = () => {};
      gate = new Promise((resolve) => (open = resolve));
      return open;
    },
    async tick() {
      const now = timers;
      timers = [];
      for (const timer of now) timer.run();
      await new Promise((resolve) => setTimeout(resolve));
    },
    waits: () => timers.map((timer) => timer.ms),
  };
}

test('created once, then replaced with the version; changes meanwhile are saved after', async () => {
  const w = world();
  w.change('a');
  w.change('b');
  await w.tick();
  const open = w.hold();
  w.change('c');
  await w.tick();
  w.change('d');
  await w.tick();
  open();
  await w.tick();
  await w.tick();
  expect(w.log).toEqual(['create b', 'replace c v1', 'replace d v2']);
  expect(w.states.at(-1)).toBe('saved');
  expect(w.saver.unsaved).toBe(false);
});

test('a server that does not answer is tried again, later each time', async () => {
  const w = world();
  w.failWith(503);
  w.change('a');
  await w.tick();
  expect(w.states.at(-1)).toBe('waiting');
  expect(w.waits()).toEqual([2000]);
  await w.tick();
  expect(w.waits()).toEqual([5000]);
  w.failWith();
  await w.tick();
  expect(w.stored.title).toBe('a');
  expect(w.states.at(-1)).toBe('saved');
});

test('a newer version elsewhere is never overwritten; mine can be kept as a copy', async () => {
  const w = world();
  w.change('a');
  await w.tick();
  w.stored.version = 7;
  w.change('b');
  await w.tick();
  expect(w.states.at(-1)).toBe('conflict');
  w.change('c');
  await w.tick();
  expect(w.stored.title).toBe('a');
  w.saver.startAnew();
  await w.tick();
  expect(w.log.at(-1)).toBe('create c');
});

test('what the server refuses is not sent again until it changed', async () => {
  const w = world();
  w.failWith(413);
  w.change('long');
  await w.tick();
  expect(w.states.at(-1)).toBe('refused');
  expect(w.waits()).toEqual([]);
  w.failWith();
  w.change('short');
  await w.tick();
  expect(w.stored.title).toBe('short');
});

test('deleted elsewhere is told; leaving sends the last change', async () => {
  const w = world();
  w.change('a');
  await w.tick();
  w.change('b');
  w.saver.leave();
  expect(w.log.at(-1)).toBe('last replace b v1');
  w.failWith(404);
  await w.tick();
  expect(w.states.at(-1)).toBe('gone');
});
