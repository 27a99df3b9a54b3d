import { expect, it } from 'vitest';
import { EXAMPLES } from './examples';
import { fits, grouped, inOrder } from './groups';
import type { Endpoint } from './openapi';

const endpoint = (method: string, path: string, part: Partial<Endpoint> = {}): Endpoint => ({
  id: path,
  method,
  path,
  summary: '',
  description: '',
  key: true,
  parameters: [],
  body: [],
  answers: [],
  ...part,
});

it('shows every endpoint once, in the order of use, the page’s own last', () => {
  const all = [
    endpoint('GET', '/api/session'),
    endpoint('GET', '/v1/new'),
    endpoint('DELETE', '/v1/models/{id}'),
    endpoint('GET', '/v1/models'),
    endpoint('POST', '/v1/generate_response'),
  ];
  const groups = grouped(all);
  expect(groups.map((group) => group.name)).toEqual(['generate', 'models', 'keep', 'other', 'page']);
  expect(groups.flatMap((group) => group.endpoints)).toHaveLength(all.length);
});

it('has its examples in the order', () => {
  expect(inOrder()).toHaveLength(Object.values(EXAMPLES).flat().length);
  const paths = inOrder().map(({ call }) => `${call.method} ${call.path}`);
  expect(paths.indexOf('POST /v1/models')).toBeLessThan(paths.indexOf('POST /v1/train'));
  expect(paths.at(-1)).toBe('DELETE /v1/models/mycustommodel');
});

it('searches paths, words and fields', () => {
  const one = endpoint('POST', '/v1/train', { summary: 'Trains a model.', body: [{ name: 'kl_limit' } as never] });
  expect(fits(one, '')).toBe(true);
  expect(fits(one, 'KL_ train')).toBe(true);
  expect(fits(one, 'post model')).toBe(true);
  expect(fits(one, 'train delete')).toBe(false);
});
