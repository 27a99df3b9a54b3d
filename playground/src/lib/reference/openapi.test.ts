import { describe, expect, it } from 'vitest';
import { limits, type OpenApi, plain, Reader } from './openapi';

const DOC: OpenApi = {
  info: { title: 'T', version: '1' },
  paths: {
    '/v1/things/{id}': {
      post: {
        tags: ['things'],
        summary: 'Makes a thing.',
        security: [{ api_key: [] }],
        parameters: [{ name: 'id', in: 'path', required: true, description: 'Its id', schema: { type: 'string' } }],
        requestBody: { content: { 'application/json': { schema: { $ref: '#/components/schemas/Make' } } } },
        responses: {
          '200': { description: 'The thing', content: { 'application/json': { schema: { $ref: '#/components/schemas/Tree' } } } },
          '404': { description: 'No such thing', content: { 'application/json': { schema: { $ref: '#/components/schemas/Tree' } } } },
        },
      },
      get: { responses: {} },
    },
  },
  components: {
    schemas: {
      Make: {
        type: 'object',
        required: ['name'],
        properties: {
          stop: { oneOf: [{ $ref: '#/components/schemas/Stop', description: 'Where it ends.' }, { type: 'null' }] },
          role: { $ref: '#/components/schemas/Role' },
          name: { type: 'string', maxLength: 64 },
          parts: { type: ['array', 'null'], items: { $ref: '#/components/schemas/Part' }, description: 'Parts; see [`crate::limits::PARTS`].' },
          against: { oneOf: [{ $ref: '#/components/schemas/Role' }, { type: 'integer' }] },
        },
      },
      Role: { type: 'string', description: 'Who speaks.', enum: ['user', 'assistant'] },
      Stop: { oneOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' } }] },
      Part: { type: 'object', required: ['x'], properties: { x: { type: 'number', exclusiveMinimum: 0, maximum: 1, default: 0.5 } } },
      Tree: { type: 'object', properties: { children: { type: 'array', items: { $ref: '#/components/schemas/Tree' } } } },
      Line: {
        oneOf: [
          { allOf: [{ $ref: '#/components/schemas/Part' }, { type: 'object', properties: { type: { type: 'string', enum: ['part'] } } }], description: 'A part.' },
          { $ref: '#/components/schemas/Tree' },
        ],
      },
    },
  },
};

const reader = new Reader(DOC);
const [get, post] = reader.endpoints();
const field = (name: string) => post?.body.find((one) => one.name === name);

it('lists endpoints with ids for the address', () => {
  expect(get).toMatchObject({ id: 'get-v1-things-id', method: 'GET', key: false, body: [] });
  expect(post).toMatchObject({ id: 'post-v1-things-id', key: true, summary: 'Makes a thing.' });
  expect(post?.parameters[0]).toMatchObject({ name: 'id', where: 'path', required: true, type: 'string', description: 'Its id' });
});

describe('fields', () => {
  it('puts what is required first', () => {
    expect(post?.body[0]).toMatchObject({ name: 'name', required: true, limits: '≤ 64' });
  });

  it('drops null, keeps the description of this use', () => {
    expect(field('stop')).toMatchObject({ type: 'string or array of string', description: 'Where it ends.', required: false });
  });

  it('resolves references, enums and arrays of objects', () => {
    expect(field('role')).toMatchObject({ type: 'string', values: ['"user"', '"assistant"'], description: 'Who speaks.' });
    expect(field('parts')).toMatchObject({ type: 'array of object', description: 'Parts; see `PARTS`.' });
    expect(field('parts')?.fields[0]).toMatchObject({ name: 'x', limits: '> 0, ≤ 1', default: '0.5' });
    expect(field('against')).toMatchObject({ type: 'string or integer', values: ['"user"', '"assistant"'] });
  });

  it('tells several shapes apart', () => {
    const shape = reader.shape({ $ref: '#/components/schemas/Line' });
    expect(shape.variants.map((one) => [one.description, one.fields.map((inner) => inner.name)])).toEqual([
      ['A part.', ['x', 'type']],
      ['', ['children']],
    ]);
  });

  it('ends where a shape refers to itself', () => {
    expect(post?.answers[0]?.shape?.fields[0]).toMatchObject({ name: 'children', type: 'array of object' });
  });
});

it('gives the shape of good answers only', () => {
  expect(post?.answers.map(({ status, good, shape }) => [status, good, !!shape])).toEqual([
    ['200', true, true],
    ['404', false, false],
  ]);
});

it.each([
  [{ minimum: 0, maximum: 2 }, '0 to 2'],
  [{ minimum: 1 }, '≥ 1'],
  [{ exclusiveMinimum: 0 }, '> 0'],
  [{ minimum: 0, exclusiveMaximum: 1 }, '≥ 0, < 1'],
  [{}, undefined],
])('limits of %j', (schema, expected) => {
  expect(limits(schema)).toBe(expected);
});

it('takes Rust out of descriptions', () => {
  expect(plain('At most [`crate::limits::MAX_STOP_STRINGS`].')).toBe('At most `MAX_STOP_STRINGS`.');
  expect(plain(undefined)).toBe('');
});
