// An example for every endpoint, with the model that is built into the program. In the page's order, from top to bottom, they run as shown:
// what one makes, the next ones use, and the last one deletes it. A test does just that, in every language.
import type { Call } from '../code/snippets';

export interface Example {
  /** Key of its title in the catalogue. */
  title: 'plain' | 'stream' | 'several' | 'json' | 'reward' | 'trainStream' | 'batch';
  call: Call;
}

const MODEL = 'MyCustomModel';
const ID = 'mycustommodel';
const question = [{ role: 'user', content: 'What is the capital of Peru?' }];
const answers = [
  { content: 'Arr, the capital of Peru be Lima, matey!', reward: 1 },
  { content: 'The capital of Peru is Lima.', reward: 0 },
];

const one = (call: Call): Example[] => [{ title: 'plain', call }];

/** By method and path as the document has them. */
export const EXAMPLES: Record<string, Example[]> = {
  'POST /v1/generate_response': [
    { title: 'plain', call: { method: 'POST', path: '/v1/generate_response', body: { model: 'tiger-nano', messages: question } } },
    { title: 'stream', call: { method: 'POST', path: '/v1/generate_response', body: { model: 'tiger-nano', messages: question, stream: true } } },
    {
      title: 'several',
      call: { method: 'POST', path: '/v1/generate_response', body: { model: 'tiger-nano', messages: question, n: 4, temperature: 1 } },
    },
    {
      title: 'json',
      call: {
        method: 'POST',
        path: '/v1/generate_response',
        body: {
          model: 'tiger-nano',
          messages: question,
          max_tokens: 60,
          response_format: {
            type: 'json_schema',
            schema: { type: 'object', properties: { capital: { type: 'string', enum: ['Lima', 'Quito'] } }, required: ['capital'] },
          },
        },
      },
    },
  ],
  'GET /v1/models': one({ method: 'GET', path: '/v1/models' }),
  'POST /v1/models': one({
    method: 'POST',
    path: '/v1/models',
    body: { name: MODEL, description: 'Answers like a pirate', parent_model: 'tiger-nano' },
  }),
  'GET /v1/models/{id}': one({ method: 'GET', path: `/v1/models/${ID}` }),
  'PATCH /v1/models/{id}': one({ method: 'PATCH', path: `/v1/models/${ID}`, body: { description: 'Answers like a pirate, always', temperature: 0.7 } }),
  'POST /v1/train': [
    { title: 'reward', call: { method: 'POST', path: '/v1/train', body: { model: ID, messages: question, responses: answers } } },
    { title: 'trainStream', call: { method: 'POST', path: '/v1/train', body: { model: ID, messages: question, responses: answers, stream: true } } },
    {
      title: 'batch',
      call: {
        method: 'POST',
        path: '/v1/train',
        body: {
          model: ID,
          batch: [
            { messages: question, responses: answers },
            {
              messages: [{ role: 'user', content: 'What colour is grass?' }],
              responses: [
                { content: 'Arr, grass be green, matey!', reward: 1 },
                { content: 'Grass is green.', reward: 0 },
              ],
            },
          ],
        },
      },
    },
  ],
  'POST /v1/models/{id}/evaluate': one({
    method: 'POST',
    path: `/v1/models/${ID}/evaluate`,
    body: { prompts: [{ messages: [{ role: 'user', content: 'What is the capital of Italy?' }] }], samples: 2, seed: 7 },
  }),
  'GET /v1/models/{id}/revisions': one({ method: 'GET', path: `/v1/models/${ID}/revisions?limit=10` }),
  'POST /v1/models/{id}/rollback': one({ method: 'POST', path: `/v1/models/${ID}/rollback`, body: { revision: 0 } }),
  'GET /v1/models/{id}/adapter/{file}': one({ method: 'GET', path: `/v1/models/${ID}/adapter/adapter_config.json` }),
  'DELETE /v1/models/{id}': one({ method: 'DELETE', path: `/v1/models/${ID}` }),
};

/** Endpoints that need no key have one plain line. */
export const plainCurl = (path: string, origin: string) => `curl ${origin}${path}`;
