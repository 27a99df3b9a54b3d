// A server that has been used a little: a trained model with curves, chats, keys. For screenshots and for checks of every page.
import type { GenerateResponse, ModelInfo, TrainResponse } from '../src/lib/api/types';
import type { Server } from './harness';

const QUESTIONS = [
  'What is the capital of France?',
  'What is the capital of Japan?',
  'What colour is grass?',
  'What does a cow say?',
  'What is 7 plus 5?',
  'How many legs does a spider have?',
];

/** What the seeded model is called. */
export const PIRATE = { name: 'Pirate', id: 'pirate' };

/** One call of training: answers sampled, those in pirate style rewarded. */
export async function trainOnce(server: Server, model: string): Promise<TrainResponse> {
  const batch = [];
  for (const content of QUESTIONS) {
    const messages = [{ role: 'user', content }];
    const answer = await server.call<GenerateResponse>('POST', '/v1/generate_response', { model, messages, n: 8, temperature: 1, top_p: 1 });
    const rated = (answer.responses ?? []).map((one) => ({ response_id: one.response_id, reward: /\bArr\b/.test(one.content) ? 1 : 0 }));
    batch.push({ messages, responses: rated });
  }
  return await server.call<TrainResponse>('POST', '/v1/train', { model, batch });
}

/** A private model trained `times` times. */
export async function seedModel(server: Server, times: number): Promise<ModelInfo> {
  const request = { name: PIRATE.name, description: 'Answers as a pirate would', parent_model: 'tiger-nano', seed: 3 };
  const model = await server.call<ModelInfo>('POST', '/v1/models', request);
  for (let round = 0; round < times; round++) await trainOnce(server, model.id);
  return model;
}

/** Two chats, one with a branch. */
export async function seedChats(server: Server): Promise<string[]> {
  const now = Date.now() / 1000;
  const usage = { duration: 0.021, input_tokens: 14, cached_tokens: 0, output_tokens: 11 };
  const answer = { role: 'assistant', model: 'tiger-nano', revision: 0, stop_reason: 'end_turn', usage, first_token_s: 0.004 };
  const chats = [
    {
      title: 'Capitals',
      model: 'tiger-nano',
      system: '',
      settings: {},
      nodes: [
        { id: 'u1', role: 'user', content: 'What is the capital of France?', created: now - 90_000 },
        { id: 'a1', parent: 'u1', ...answer, content: 'The capital of France is Paris.', created: now - 89_999 },
        { id: 'a2', parent: 'u1', ...answer, content: 'Arr, the capital of France be Paris, matey!', created: now - 89_990 },
        { id: 'u2', parent: 'a2', role: 'user', content: 'And Spain?', created: now - 89_900 },
        { id: 'a3', parent: 'u2', ...answer, content: 'Arr, the capital of Spain be Madrid, matey!', created: now - 89_899 },
      ],
      leaf: 'a3',
    },
    {
      title: 'A short guide in Markdown',
      model: 'pirate',
      system: '',
      settings: { temperature: 0.8 },
      nodes: [
        { id: 'u1', role: 'user', content: 'How do rewards become gradients? Show me the code.', created: now - 600 },
        { id: 'a1', parent: 'u1', ...answer, model: 'pirate', revision: 8, content: GUIDE, created: now - 598 },
      ],
      leaf: 'a1',
    },
  ];
  const ids = [];
  for (const chat of chats) ids.push((await server.call<{ id: string }>('POST', '/api/chats', chat)).id);
  return ids;
}

const GUIDE = `Each response gets an **advantage**: its reward less the mean of its group.

| response | reward | advantage |
| --- | ---: | ---: |
| Arr, it be Paris | 1 | +0.5 |
| Paris | 0 | −0.5 |

Then the loss is the advantage times the log-probability of its tokens:

\`\`\`python
advantages = rewards - rewards.mean()
loss = -(advantages[:, None] * logprobs).sum() / tokens
loss.backward()
\`\`\`

1. What is above the mean becomes *more* probable.
2. What is below becomes less so.
3. Equal rewards change nothing.

> Only differences count, not the scale's zero.
`;

/** Two keys. */
export async function seedKeys(server: Server): Promise<void> {
  await server.call('POST', '/api/keys', { name: 'laptop' });
  await server.call('POST', '/api/keys', { name: 'nightly evaluation' });
}
