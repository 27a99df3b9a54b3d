// Asks both sides of a comparison: two revisions of one model by its `evaluate`, two models by the same prompts and seeds. Knows no page.
import { post, stream } from '../api/client';
import type { EvaluateStop, GenerateResponse, Sample } from '../api/types';
import { asMessages, type Comparison, fromEvaluation, fromSamples, type Pair, type Side } from './comparison';

export interface Wanted {
  a: Side;
  b: Side;
  prompts: string[];
  samples: number;
  temperature: number;
  seed: number;
}

export interface Watch {
  signal: AbortSignal;
  /** Answers done, of all. */
  onprogress: (done: number, all: number) => void;
}

export async function compare(wanted: Wanted, watch: Watch): Promise<Comparison> {
  const { a, b, seed } = wanted;
  if (a.model === b.model && a.revision !== undefined && b.revision !== undefined) return evaluated(wanted, watch);
  const pairs: Pair[] = [];
  let done = 0;
  const all = wanted.prompts.length * 2;
  watch.onprogress(done, all);
  const revisions: { a?: number; b?: number } = {};
  for (const [at, prompt] of wanted.prompts.entries()) {
    const ask = async (side: 'a' | 'b') => {
      const body = { model: wanted[side].model, messages: asMessages(prompt), n: wanted.samples, temperature: wanted.temperature, seed: seed + at };
      const answer = await post<GenerateResponse>('/v1/generate_response', body, { signal: watch.signal });
      revisions[side] = answer.revision;
      watch.onprogress(++done, all);
      return answersOf(answer);
    };
    const [mine, theirs] = await Promise.all([ask('a'), ask('b')]);
    pairs.push(...fromSamples(prompt, mine, theirs));
  }
  return { a: { ...a, revision: a.revision ?? revisions.a }, b, seed, pairs };
}

const answersOf = (answer: GenerateResponse): Sample[] =>
  answer.responses ?? [{ content: answer.message.content, reasoning: answer.reasoning, stop_reason: answer.stop_reason, response_id: answer.response_id }];

async function evaluated({ a, b, prompts, samples, temperature, seed }: Wanted, watch: Watch): Promise<Comparison> {
  const body = {
    prompts: prompts.map((prompt) => ({ messages: asMessages(prompt) })),
    revision: a.revision,
    against: b.revision,
    samples,
    temperature,
    seed,
  };
  for await (const chunk of stream<EvaluateStop>(`/v1/models/${encodeURIComponent(a.model)}/evaluate`, body, { signal: watch.signal })) {
    if (chunk.type === 'progress') watch.onprogress(chunk.step, chunk.steps);
    else if (chunk.type === 'stop') return { a, b, seed, pairs: fromEvaluation(prompts, chunk), kl: chunk.kl };
  }
  throw new Error('unreachable: a stream ends in stop or throws');
}
