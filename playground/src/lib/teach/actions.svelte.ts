// What the page Teach does with the server: asks, makes a private copy, trains, compares, takes back. Knows no component.
import { asApiError, isAbort, post, stream } from '../api/client';
import type { EvaluateStop, GenerateStop, Message, ModelInfo, TrainRequest, TrainStop } from '../api/types';
import { findModel, loadModels, models } from '../models.svelte';
import { changesOf, compare } from './outcome';
import { fold, meanReward, shuffled } from './ratings';
import { buildTrain, type Built } from './request';
import { applyRule, shareOf } from './rules';
import { blank, take } from './sampling';
import { newId, ready, target, teach } from './state.svelte';
import type { Answer, Group } from './types';

/** Questions that are asked at the same time: browsers open six connections to a server, other calls need some of them. */
const AT_ONCE = 3;
/** Answers of each side to each prompt in the comparison. */
const COMPARED = 4;
/** Prompts of a comparison; more are left out. */
const COMPARED_PROMPTS = 64;

let stopper: AbortController | undefined;

/** Ends what runs now, where that may be ended. */
export function stop(): void {
  teach.stopping = true;
  stopper?.abort();
}

/** The page's knowledge of a revision, here and in the shared list. */
function learnt(id: string, revision: number): void {
  teach.known[id] = revision;
  const model = models.list.find((one) => one.id === id);
  if (model && !model.read_only) model.revision = revision;
}

function questions(): Message[][] {
  const system = teach.system.trim();
  const asked = teach.prompts.map((prompt) => prompt.text.trim()).filter(Boolean);
  return asked.map((content) => [...(system ? [{ role: 'system' as const, content: system }] : []), { role: 'user' as const, content }]);
}

/** Asks all prompts; with a rule set, the answers are rated by it. True when all was answered. */
export async function ask(count = teach.count): Promise<boolean> {
  const auto = teach.busy === 'auto';
  if (!auto) teach.busy = 'ask';
  const control = new AbortController();
  stopper = control;
  Object.assign(teach, { askError: undefined, trainError: undefined, status: '', preview: undefined, settled: true, byHand: false, wish: undefined });
  if (!auto) Object.assign(teach, { outcome: undefined, comparison: undefined, compareError: undefined, autoEnd: '', stopping: false });
  kept = undefined;
  const sources = [teach.model, teach.also].filter((id, at, all) => id && all.indexOf(id) === at).map((id) => findModel(id));
  teach.groups = questions().map((messages) => ({
    id: newId(),
    messages,
    answers: sources.flatMap((model) => (model ? blank(count, newId, { model: model.id, base: model.base_model }) : [])),
  }));
  const jobs = teach.groups.flatMap((group) =>
    sources.flatMap((model, source) => (model ? [() => fill(group, model, [source * count, count], control.signal)] : [])),
  );
  try {
    await inParallel(jobs, () => control.abort());
    for (const group of teach.groups) {
      group.answers = fold(group.answers);
      if (sources.length > 1 && teach.blind) group.answers = shuffled(group.answers);
    }
    if (teach.rule) applyRule(teach.rule, teach.groups);
    teach.settled = !teach.rule;
    return true;
  } catch (thrown) {
    // What was cut off has no response id and is no answer of the model.
    for (const group of teach.groups) group.answers = fold(group.answers.filter((answer) => answer.done));
    teach.groups = teach.groups.filter((group) => group.answers.length > 0);
    if (!isAbort(thrown)) teach.askError = thrown;
    return false;
  } finally {
    teach.status = '';
    if (!auto) teach.busy = '';
    if (stopper === control) stopper = undefined;
  }
}

async function inParallel(jobs: (() => Promise<void>)[], onfail: () => void): Promise<void> {
  let at = 0;
  let failure: { thrown: unknown } | undefined;
  const worker = async () => {
    for (let job = jobs[at++]; job && !failure; job = jobs[at++]) {
      try {
        await job();
      } catch (thrown) {
        failure ??= { thrown };
        onfail();
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (failure) throw failure.thrown;
}

async function fill(group: Group, model: ModelInfo, [from, count]: [number, number], signal: AbortSignal): Promise<void> {
  const answers: Answer[] = group.answers.slice(from, from + count);
  // Temperature 1 and all tokens: the distribution that training changes.
  const body = { model: model.id, messages: group.messages, n: count, temperature: 1, top_p: 1 };
  for await (const chunk of stream<GenerateStop>('/v1/generate_response', body, { signal })) {
    if (chunk.type === 'info') teach.status = chunk.message;
    else {
      if (chunk.type === 'delta') teach.status = '';
      take(answers, chunk);
      if (chunk.type === 'stop' && !model.read_only) learnt(model.id, chunk.revision);
    }
  }
}

/** Makes a private copy of the chosen model and goes on with it. */
export async function makeMine(name: string): Promise<boolean> {
  teach.busy = 'make';
  teach.makeError = undefined;
  try {
    const made = await post<ModelInfo>('/v1/models', { name: name.trim(), description: '', parent_model: teach.model });
    await loadModels();
    if (!findModel(made.id)) models.list.push(made);
    learnt(made.id, made.revision ?? 0);
    teach.model = made.id;
    return true;
  } catch (thrown) {
    teach.makeError = thrown;
    return false;
  } finally {
    teach.busy = '';
  }
}

/** A request whose answer has not come, with the key under which it is trained once. */
let kept: { key: string; built: Built; body: string } | undefined;

/** The request as it would be sent now. */
export function currentRequest(): Built | undefined {
  const mine = target();
  return mine && buildTrain(teach.groups, mine, teach.knobs);
}

/** Trains on the ratings. True when an answer came, also where it says that nothing changed. */
export async function train(): Promise<boolean> {
  const auto = teach.busy === 'auto';
  const built = currentRequest();
  if (!built) return false;
  const from = target()?.revision ?? 0;
  const body = JSON.stringify(built.request);
  // After a lost connection the same request goes again under the same key; another one is another training.
  if (kept?.body !== body) kept = { key: crypto.randomUUID(), built, body };
  const sent = kept;
  if (!auto) teach.busy = 'train';
  Object.assign(teach, { trainError: undefined, preview: undefined, progress: undefined, status: '' });
  if (!auto) Object.assign(teach, { outcome: undefined, comparison: undefined, compareError: undefined, autoEnd: '' });
  try {
    const response = await trained(sent.built.request, { 'idempotency-key': sent.key });
    kept = undefined;
    if (response.updated) {
      learnt(response.model, response.revision);
      teach.settled = true;
    }
    teach.outcome = {
      model: response.model,
      from,
      to: response.revision,
      response,
      changes: changesOf(sent.built.slots, response),
      leftOut: ready().equal,
    };
    if (!auto) note(from, response.updated);
    return true;
  } catch (thrown) {
    const error = asApiError(thrown);
    if (error.status !== 0 && error.code !== 'idempotency_in_flight') kept = undefined;
    teach.trainError = thrown;
    return false;
  } finally {
    teach.progress = undefined;
    teach.status = '';
    if (!auto) teach.busy = '';
  }
}

function note(revision: number, updated: boolean): void {
  teach.rounds.push({ revision, share: shareOf(teach.rule, teach.groups), rewardMean: meanReward(teach.groups), trained: updated });
}

async function trained(request: TrainRequest, headers: Record<string, string>): Promise<TrainStop> {
  for await (const chunk of stream<TrainStop>('/v1/train', request, { headers })) {
    if (chunk.type === 'info') teach.status = chunk.message;
    else if (chunk.type === 'progress') teach.progress = { step: chunk.step, steps: chunk.steps };
    else if (chunk.type === 'stop') return chunk;
  }
  throw new Error('unreachable: a stream ends in stop or throws');
}

/** Says what training would do, on a copy of the weights. */
export async function preview(): Promise<void> {
  const built = currentRequest();
  if (!built) return;
  teach.busy = 'preview';
  teach.trainError = undefined;
  try {
    const answer = await trained({ ...built.request, dry_run: true, evaluate: true }, {});
    teach.preview = { changes: changesOf(built.slots, answer), warnings: answer.warnings };
  } catch (thrown) {
    teach.trainError = thrown;
  } finally {
    teach.busy = '';
    teach.progress = undefined;
    teach.status = '';
  }
}

/** Asks the same prompts again of the revision before and of the one after, with the same seeds. */
export async function compareRevisions(from = teach.outcome?.from ?? 0): Promise<void> {
  const model = target();
  if (!model) return;
  const auto = teach.busy === 'auto';
  if (!auto) teach.busy = 'compare';
  teach.compareError = undefined;
  const control = new AbortController();
  stopper = control;
  const groups = teach.groups.slice(0, COMPARED_PROMPTS);
  const body = { prompts: groups.map((group) => ({ messages: group.messages })), against: from, samples: COMPARED, temperature: 1, top_p: 1 };
  try {
    for await (const chunk of stream<EvaluateStop>(`/v1/models/${encodeURIComponent(model.id)}/evaluate`, body, { signal: control.signal })) {
      if (chunk.type === 'progress') teach.progress = { step: chunk.step, steps: chunk.steps };
      if (chunk.type === 'stop') teach.comparison = compare(chunk, groups.map((group) => group.messages.at(-1)?.content ?? ''), from);
    }
  } catch (thrown) {
    if (!isAbort(thrown)) teach.compareError = thrown;
  } finally {
    teach.progress = undefined;
    if (!auto) teach.busy = '';
    if (stopper === control) stopper = undefined;
  }
}

/** Makes the revision before the training the newest again. */
export async function undo(): Promise<void> {
  const outcome = teach.outcome;
  if (!outcome) return;
  teach.busy = 'undo';
  teach.trainError = undefined;
  try {
    const info = await post<ModelInfo>(`/v1/models/${encodeURIComponent(outcome.model)}/rollback`, { revision: outcome.from });
    learnt(outcome.model, info.revision ?? outcome.to + 1);
    outcome.undoneAs = info.revision ?? outcome.to + 1;
    Object.assign(teach, { settled: true, autoEnd: '', preview: undefined });
    teach.rounds = teach.rounds.filter((round) => round.revision < outcome.from);
  } catch (thrown) {
    teach.trainError = thrown;
  } finally {
    teach.busy = '';
  }
}
