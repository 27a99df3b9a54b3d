// OpenAI's own JavaScript SDK against this server: the real binary on an empty folder with the built-in model. Knows nothing of the server's insides.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import OpenAI from 'openai';

const tiger = process.env.TIGER_BIN ?? fileURLToPath(new URL('../../target/debug/tiger', import.meta.url));
const model = 'tiger-nano';
const messages = [{ role: 'user', content: 'What is the capital of France?' }];
const city = { type: 'object', properties: { city: { enum: ['Oslo', 'Rome'] } }, required: ['city'], additionalProperties: false };
const weather = { type: 'function', function: { name: 'weather', parameters: city } };

let data, server, client;

before(async () => {
  data = mkdtempSync(join(tmpdir(), 'tiger-'));
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TIGER_')));
  env.TIGER_HOME = data;
  const apiKey = execFileSync(tiger, ['keys', 'create', 'sdk'], { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  server = spawn(tiger, ['serve', '--port', '0', '--memory', '2'], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  const url = await new Promise((resolve, reject) => {
    const lines = createInterface({ input: server.stderr });
    lines.on('line', (line) => line.startsWith('listening on ') && resolve(line.slice('listening on '.length)));
    server.on('exit', () => reject(new Error('the server ended before it listened')));
  });
  client = new OpenAI({ baseURL: `${url}/openai/v1`, apiKey, maxRetries: 0 });
});

after(async () => {
  const ended = new Promise((resolve) => server.once('exit', resolve));
  server.kill('SIGTERM');
  await ended;
  rmSync(data, { recursive: true, force: true });
});

const chat = (fields) => client.chat.completions.create({ model, messages, temperature: 0, ...fields });

async function all(stream) {
  const items = [];
  for await (const item of await stream) items.push(item);
  return items;
}

test('models', async () => {
  assert.ok((await all(client.models.list())).some((one) => one.id === model));
  assert.equal((await client.models.retrieve(model)).owned_by, 'tigercity');
  await assert.rejects(client.models.retrieve('absent'), OpenAI.NotFoundError);
  await assert.rejects(client.models.delete(model), OpenAI.PermissionDeniedError);
});

test('chat', async () => {
  const answer = await chat({});
  assert.match(answer.choices[0].message.content, /Paris/);
  assert.equal(answer.choices[0].finish_reason, 'stop');
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  const cut = await chat({ max_completion_tokens: 2 });
  assert.deepEqual([cut.choices[0].finish_reason, cut.usage.completion_tokens], ['length', 2]);
});

test('a stream adds up to the whole answer', async () => {
  const fields = { n: 2, temperature: 1, seed: 4 };
  const whole = await chat(fields);
  const chunks = await all(chat({ ...fields, stream: true, stream_options: { include_usage: true } }));
  assert.equal(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
  for (const choice of whole.choices) {
    const mine = chunks.flatMap((chunk) => chunk.choices).filter((one) => one.index === choice.index);
    assert.equal(mine.map((one) => one.delta.content ?? '').join(''), choice.message.content);
    assert.equal(mine.at(-1).finish_reason, choice.finish_reason);
  }
});

test('the helper of streams', async () => {
  const stream = client.chat.completions.stream({ model, messages, temperature: 0 });
  assert.match(await stream.finalContent(), /Paris/);
  assert.ok((await stream.totalUsage()) !== undefined);
});

test('log-probabilities', async () => {
  const [choice] = (await chat({ logprobs: true, top_logprobs: 5 })).choices;
  const tokens = choice.logprobs.content;
  assert.equal(Buffer.from(tokens.flatMap((token) => token.bytes)).toString(), choice.message.content);
  for (const token of tokens) {
    const numbers = token.top_logprobs.map((top) => top.logprob);
    assert.deepEqual(numbers, numbers.toSorted((a, b) => b - a));
    assert.ok(numbers.length === 5 && numbers.reduce((sum, number) => sum + Math.exp(number), 0) <= 1 + 1e-5);
    assert.deepEqual([token.token, token.logprob], [token.top_logprobs[0].token, token.top_logprobs[0].logprob]);
  }
});

test('seeds and stops', async () => {
  const text = async (fields) => (await chat(fields)).choices[0].message.content;
  const first = await text({ temperature: 2, seed: 1, max_tokens: 20 });
  assert.equal(await text({ temperature: 2, seed: 1, max_tokens: 20 }), first);
  assert.notEqual(await text({ temperature: 2, seed: 2, max_tokens: 20 }), first);
  assert.match(await text({ stop: 'aris' }), /P$/);
});

test('formats', async () => {
  const read = async (response_format) => JSON.parse((await chat({ response_format })).choices[0].message.content);
  assert.equal(typeof (await read({ type: 'json_object' })), 'object');
  assert.match((await read({ type: 'json_schema', json_schema: { name: 'city', strict: true, schema: city } })).city, /Oslo|Rome/);
});

test('tools', async () => {
  let message;
  for (const tool_choice of ['required', { type: 'function', function: { name: 'weather' } }]) {
    const [choice] = (await chat({ tools: [weather], tool_choice })).choices;
    message = choice.message;
    assert.equal(choice.finish_reason, 'tool_calls');
    assert.match(JSON.parse(message.tool_calls[0].function.arguments).city, /Oslo|Rome/);
    const stream = client.chat.completions.stream({ model, messages, temperature: 0, tools: [weather], tool_choice });
    const streamed = (await stream.finalMessage()).tool_calls[0].function;
    assert.deepEqual([streamed.name, streamed.arguments], ['weather', message.tool_calls[0].function.arguments]);
  }
  const told = [...messages, message, { role: 'tool', tool_call_id: message.tool_calls[0].id, content: 'cold' }];
  assert.equal(typeof (await chat({ messages: told, tools: [weather], tool_choice: 'none' })).choices[0].message.content, 'string');
  assert.equal((await chat({ tools: [weather], tool_choice: 'none' })).choices[0].message.tool_calls, undefined);
  assert.match((await chat({ tools: [weather], max_tokens: 30 })).choices[0].finish_reason, /stop|length|tool_calls/);
});

test('completions', async () => {
  const fields = { model, prompt: 'The capital of', temperature: 0, max_tokens: 6 };
  const answer = await client.completions.create({ ...fields, logprobs: 3 });
  assert.equal(answer.choices[0].logprobs.tokens.join(''), answer.choices[0].text);
  const chunks = await all(client.completions.create({ ...fields, stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(''), answer.choices[0].text);
  assert.equal((await client.completions.create({ ...fields, prompt: [5, 6, 7] })).usage.prompt_tokens, 3);
});

test('responses', async () => {
  const fields = { model, input: messages[0].content, temperature: 0 };
  const answer = await client.responses.create(fields);
  assert.match(answer.output_text, /Paris/);
  const events = await all(client.responses.create({ ...fields, stream: true }));
  const deltas = events.filter((event) => event.type === 'response.output_text.delta');
  assert.equal(deltas.map((event) => event.delta).join(''), answer.output_text);
  const final = await client.responses.stream(fields).finalResponse();
  assert.equal(final.output_text, answer.output_text);
  const format = { type: 'json_schema', name: 'city', schema: city };
  assert.match(JSON.parse((await client.responses.create({ ...fields, text: { format } })).output_text).city, /Oslo|Rome/);
});

test('errors', async () => {
  await assert.rejects(chat({ n: 0 }), { status: 400, param: 'n', type: 'invalid_request_error', code: 'invalid_parameter' });
  await assert.rejects(chat({ presence_penalty: 1 }), { status: 400, param: 'presence_penalty' });
  await assert.rejects(chat({ model: 'absent', stream: true }), OpenAI.NotFoundError);
  await assert.rejects(client.withOptions({ apiKey: 'tiger_wrong' }).models.list(), OpenAI.AuthenticationError);
  const long = [{ role: 'user', content: 'word '.repeat(5000) }];
  await assert.rejects(chat({ messages: long }), { status: 400, code: 'context_length_exceeded' });
});
