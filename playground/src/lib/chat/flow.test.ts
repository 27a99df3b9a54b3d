import { expect, test } from 'vitest';
import { Flow, type Piece } from './flow';

function made(whole = false) {
  const frames: (() => void)[] = [];
  const shown: Piece[][] = [];
  const flow = new Flow((pieces) => shown.push(pieces), (run) => frames.push(run), whole);
  return { flow, shown, frame: () => frames.shift()?.(), text: () => shown.flat().map((piece) => piece.text).join('') };
}

test('a burst is spread over frames and complete in the end', async () => {
  const { flow, shown, frame, text } = made();
  flow.push('content', 'The capital of France is Paris.');
  flow.push('content', ' And more.');
  let drained = false;
  const end = flow.drain().then(() => (drained = true));
  frame();
  expect(shown.length).toBe(1);
  for (let i = 0; i < 10; i++) frame();
  await end;
  expect(drained).toBe(true);
  expect(shown.length).toBeGreaterThanOrEqual(3);
  expect(text()).toBe('The capital of France is Paris. And more.');
});

test('a long backlog does not fall behind', () => {
  const { flow, shown, frame } = made();
  flow.push('content', 'x'.repeat(100_000));
  for (let i = 0; i < 50; i++) frame();
  expect(shown.flat().reduce((sum, piece) => sum + piece.text.length, 0)).toBe(100_000);
});

test('reasoning stays before the answer, characters stay whole', () => {
  const { flow, shown, frame, text } = made();
  flow.push('reasoning', 'Hm. ');
  flow.push('content', '🐯'.repeat(20));
  for (let i = 0; i < 30; i++) frame();
  expect(shown[0]?.[0]).toEqual({ kind: 'reasoning', text: 'Hm. ' });
  for (const piece of shown.flat()) expect(() => encodeURIComponent(piece.text)).not.toThrow();
  expect(text()).toBe(`Hm. ${'🐯'.repeat(20)}`);
});

test('flushing shows the rest at once; without motion every frame does', () => {
  const one = made();
  one.flow.push('content', 'y'.repeat(500));
  one.flow.flush();
  expect(one.text().length).toBe(500);
  const still = made(true);
  still.flow.push('content', 'z'.repeat(500));
  still.frame();
  expect(still.shown.length).toBe(1);
});
