// The request is what the ratings say, and every response of the answer finds its card again.
import { expect, test } from 'vitest';
import { buildTrain, freeName, idOf } from './request';
import { answer, group } from './testing';

const target = { id: 'mine', base: 'Tiger-Nano', revision: 3 };
const knobs = { steps: 3 };

test('one prompt: messages and responses, one for each time a text was sampled', () => {
  const good = answer('Arr!', { responseIds: ['r1', 'r2'], reward: 1 });
  const rest = answer('No.', { responseIds: ['r3'] });
  const own = answer(' Better! ', { source: 'mine', responseIds: [], reward: 0.5 });
  const built = buildTrain([group(good, rest, own)], target, knobs);
  expect(built.request).toEqual({
    model: 'mine',
    messages: [{ role: 'user', content: 'Why?' }],
    responses: [
      { response_id: 'r1', reward: 1 },
      { response_id: 'r2', reward: 1 },
      { response_id: 'r3', reward: 0 },
      { content: 'Better!', reward: 0.5 },
    ],
    steps: 3,
    if_revision: 3,
  });
  expect(built.slots).toEqual([good.id, good.id, rest.id, own.id]);
});

test('several prompts: a batch without the groups that teach nothing', () => {
  const make = (first: number, second: number) => group(answer('A', { reward: first }), answer('B', { reward: second }));
  const built = buildTrain([make(1, -1), make(1, 1), make(-1, 1)], target, knobs);
  expect(built.request.batch).toHaveLength(2);
  expect(built.request.messages).toBeUndefined();
  expect(built.slots).toHaveLength(4);
});

test('answers of another base are given as text, and not at all without text', () => {
  const other = { model: 'llama', base: 'Llama-3.1-8b' };
  const built = buildTrain([group(answer('A', { reward: 1 }), answer('B', other), answer('', other))], target, knobs);
  expect(built.request.responses?.map((one) => one.content)).toEqual([undefined, 'B']);
  expect(built.slots).toHaveLength(2);
});

test('knobs are sent only where they were set', () => {
  const groups = [group(answer('A', { reward: 1 }), answer('B'))];
  const set = buildTrain(groups, { id: 'mine', base: 'Tiger-Nano' }, { steps: 1, learning_rate: 0.001, kl_coefficient: 0, objective: 'ppo' }).request;
  expect(set).toMatchObject({ steps: 1, learning_rate: 0.001, kl_coefficient: 0, objective: 'ppo' });
  expect(set).not.toHaveProperty('if_revision');
  expect(buildTrain(groups, target, knobs).request).not.toHaveProperty('learning_rate');
});

test('names of copies', () => {
  expect(idOf('My Tiger-Nano')).toBe('my-tiger-nano');
  expect(freeName('My Tiger-Nano', [])).toBe('My Tiger-Nano');
  expect(freeName('My Tiger-Nano', ['my tiger-nano', 'My Tiger-Nano 2'])).toBe('My Tiger-Nano 3');
});
