// Against the real program, started by `clients/with-server`.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as tiger from 'tigercity';

assert.ok(process.env.TIGER_BASE_URL, 'run by `clients/run`, or below `clients/with-server`');

const QUESTION: tiger.Message[] = [{ role: 'user', content: 'What is the capital of France?' }];
const client = new tiger.TigerCity();
let model = '';

before(async () => {
  model = (await client.models.create({ name: 'Of TypeScript', description: 'for tests', parent_model: 'tiger-nano' })).id;
});

after(async () => {
  assert.equal((await client.models.delete(model)).id, model);
  await assert.rejects(client.models.get(model), tiger.NotFoundError);
});

const rated = (answer: tiger.GenerateResponse): tiger.TrainedResponse[] =>
  (answer.responses ?? []).map(({ response_id, content }) => ({ response_id, reward: content.length < 30 ? 1 : 0 }));

test('generate', async () => {
  const answer = await client.generate({ model: 'tiger-nano', messages: QUESTION, temperature: 0, logprobs: true });
  assert.match(answer.message.content, /Paris/);
  assert.deepEqual([answer.model, answer.revision, answer.stop_reason], ['tiger-nano', 0, 'end_turn']);
  assert.equal(answer.logprobs?.length, answer.usage.output_tokens);
  const messages: tiger.Message[] = [...QUESTION, answer.message, { role: 'user', content: 'And Spain?' }];
  assert.match((await client.generate({ model: 'tiger-nano', messages, temperature: 0 })).message.content, /Madrid/);
});

test('the stream gives what the whole answer gives', async () => {
  const told = ({ responses, message, logprobs }: tiger.GenerateResponse) => {
    return [responses?.map(({ response_id: _, ...rest }) => rest), message, logprobs];
  };
  const request = { model: 'tiger-nano', messages: QUESTION, n: 4, seed: 7, logprobs: true };
  const whole = await client.generate(request);
  assert.equal(whole.responses?.length, 4);
  const stream = await client.generate({ ...request, stream: true });
  assert.deepEqual(told(await stream.final()), told(whole));
  const one = await client.generateStream({ model: 'tiger-nano', messages: QUESTION, seed: 7 });
  let text = '';
  for await (const piece of one.text) text += piece;
  assert.equal(text, (await client.generate({ model: 'tiger-nano', messages: QUESTION, seed: 7 })).message.content);
});

test('a schema', async () => {
  const schema = { type: 'object', properties: { answer: { type: 'string', maxLength: 20 } }, required: ['answer'] };
  const response_format = { type: 'json_schema' as const, schema };
  const answer = await client.generate({ model: 'tiger-nano', messages: QUESTION, seed: 1, response_format });
  assert.deepEqual(Object.keys(JSON.parse(answer.message.content) as object), ['answer']);
});

test('train, revisions and roll back', async () => {
  const sampled = await client.generate({ model, messages: QUESTION, n: 8, seed: 3 });
  const trained = await client.train({ model, messages: QUESTION, responses: rated(sampled) });
  assert.deepEqual([trained.updated, trained.revision], [true, 1]);
  assert.deepEqual(trained.responses.map(({ mode }) => mode), Array(8).fill('recorded'));
  const stream = await client.trainStream({ model, batch: [{ messages: QUESTION, responses: rated(sampled) }], steps: 2 });
  const steps: number[] = [];
  for await (const chunk of stream) {
    if (chunk.type === 'progress' && chunk.metrics.loss !== undefined) steps.push(chunk.step);
  }
  assert.deepEqual(steps, [1, 2]);
  assert.equal((await stream.final()).revision, 2);
  assert.equal((await client.models.rollback(model, 0)).revision, 3);
  const revisions = await client.models.revisions(model);
  assert.deepEqual(revisions.map(({ revision, rolled_back_to }) => [revision, rolled_back_to]), [[3, 0], [2, undefined], [1, undefined], [0, undefined]]);
  assert.equal(revisions[2]?.metrics?.id, trained.id);
  assert.deepEqual((await client.models.revisions(model, { limit: 2, before: 3 })).map(({ revision }) => revision), [2, 1]);
});

test('one key trains once', async () => {
  const request = { model, messages: QUESTION, responses: [{ content: 'Paris', reward: 1 }, { content: 'It is Paris.', reward: 0 }] };
  const first = await client.train(request, { idempotencyKey: 'twice' });
  assert.deepEqual(await client.train(request, { idempotencyKey: 'twice' }), first);
  assert.equal((await client.models.get(model)).revision, first.revision);
});

test('models', async () => {
  const all = await client.models.list();
  assert.ok(all[0]?.read_only);
  assert.ok(all.some(({ id }) => id === model));
  const changed = await client.models.update(model, { description: 'another', temperature: 0.5 });
  assert.deepEqual([changed.description, changed.temperature], ['another', 0.5]);
  assert.deepEqual(await client.models.get(changed.name), changed);
  const config = new TextDecoder().decode(await client.models.adapter(model, 'adapter_config.json'));
  assert.equal((JSON.parse(config) as { peft_type: string }).peft_type, 'LORA');
  const weights = await client.models.adapter(model, undefined, { revision: 0 });
  assert.ok(new DataView(weights.buffer).getBigUint64(0, true) < weights.length);
});

test('create, streamed', async () => {
  const made = await (await client.models.createStream({ name: 'Streamed TS', description: '', parent_model: 'tiger-nano' })).final();
  assert.equal((await client.models.get(made.id)).name, 'Streamed TS');
  await client.models.delete(made.id);
});

test('evaluate', async () => {
  const prompts = [{ messages: QUESTION, responses: ['Paris'] }];
  const found = await client.models.evaluate(model, { prompts, seed: 5, revision: 0 });
  const [result] = found.results;
  // Revision 0 is the parent, so both say the same.
  assert.equal(result?.answers.model[0]?.content, result?.answers.against[0]?.content);
  assert.equal(result?.responses[0]?.logprob, result?.responses[0]?.logprob_against);
  const stream = await client.models.evaluateStream(model, { prompts, seed: 5, revision: 0 });
  assert.equal((await stream.final()).mean_logprob, found.mean_logprob);
});

test('errors name the request', async () => {
  const failures: [typeof tiger.APIStatusError, string, () => Promise<unknown>][] = [
    [tiger.NotFoundError, 'model_not_found', () => client.models.get('nobody')],
    [tiger.PermissionDeniedError, 'read_only', () => client.models.delete('tiger-nano')],
    [tiger.UnprocessableEntityError, 'invalid_parameter', () => client.generate({ model: 'tiger-nano', messages: QUESTION, top_p: 2 })],
    [tiger.UnprocessableEntityError, 'invalid_parameter', () => client.generateStream({ model: 'tiger-nano', messages: QUESTION, n: 0 })],
    [tiger.ConflictError, 'revision_conflict', () => client.train({ model, messages: QUESTION, responses: [{ content: 'a', reward: 1 }], if_revision: 99 })],
    [tiger.AuthenticationError, 'invalid_key', () => client.withOptions({ apiKey: 'tiger_wrong' }).models.list()],
    [tiger.InternalServerError, 'not_downloaded', () => client.generate({ model: 'llama-3.1-8b', messages: QUESTION })],
  ];
  for (const [kind, code, call] of failures) {
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof kind, String(error));
      assert.equal(error.code, code);
      assert.match(error.requestId ?? '', /^req_/);
      return true;
    });
  }
  // @ts-expect-error a misspelt field is refused by the compiler, and by the server by name
  await assert.rejects(client.generate({ model: 'tiger-nano', messages: QUESTION, temprature: 1 }), { param: 'temprature' });
});

test('no server', async () => {
  const nowhere = client.withOptions({ baseURL: 'http://127.0.0.1:9', maxRetries: 1 });
  await assert.rejects(nowhere.models.list(), (error) => error instanceof tiger.APIConnectionError && /tiger serve/.test(error.message));
});

test('close() ends a read that waits', async () => {
  const stream = await client.generateStream({ model: 'tiger-nano', messages: QUESTION, n: 64, seed: 1 });
  const all = (async () => {
    for await (const _ of stream);
  })();
  stream.close();
  await assert.rejects(all, tiger.StreamInterruptedError);
});

test('many at once', async () => {
  const answers = await Promise.all(Array.from({ length: 16 }, (_, seed) => client.generate({ model: 'tiger-nano', messages: QUESTION, seed })));
  for (const { message } of answers) assert.match(message.content, /Paris/);
});
