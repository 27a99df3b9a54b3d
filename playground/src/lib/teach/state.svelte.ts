// What the page Teach holds while the program's page is open: it outlives a visit to another page, not a reload. Knows no server.
import { findModel } from '../models.svelte';
import { readiness, shuffled } from './ratings';
import type { Rule } from './rules';
import type { Comparison } from './outcome';
import type { Change, Group, Knobs, Outcome, Round, Target, Way } from './types';

export interface Prompt {
  id: string;
  text: string;
}

/** What waits until the model is one's own. */
export type Wish = 'train' | 'preview' | 'auto';
export type Busy = '' | 'ask' | 'make' | 'train' | 'preview' | 'compare' | 'undo' | 'auto';

/** Several small steps on the same answers: one round is then seen at once, and drift past `target_kl` still ends it early. */
const STEPS = 4;
export const ANSWERS = { min: 2, max: 16, usual: 6 };

let next = 1;
export const newId = () => `t${next++}`;

export const teach = $state({
  model: '',
  /** A second model that answers too. */
  also: '',
  prompts: [{ id: newId(), text: '' }] as Prompt[],
  system: '',
  count: ANSWERS.usual,
  way: 'thumbs' as Way,
  rule: undefined as Rule | undefined,
  blind: true,
  knobs: { steps: STEPS } as Knobs,

  groups: [] as Group[],
  /** The ratings as they are were trained, or nobody has rated yet. */
  settled: true,
  /** Ratings that were given one by one, which no rule gives again. */
  byHand: false,
  /** The revision of each model as this page knows it: from its answers and its own trainings. */
  known: {} as Record<string, number>,

  busy: '' as Busy,
  status: '',
  progress: undefined as { step: number; steps: number } | undefined,
  wish: undefined as Wish | undefined,
  askError: undefined as unknown,
  trainError: undefined as unknown,
  makeError: undefined as unknown,
  compareError: undefined as unknown,

  preview: undefined as { changes: Record<string, Change>; warnings: string[] } | undefined,
  outcome: undefined as Outcome | undefined,
  comparison: undefined as Comparison | undefined,
  rounds: [] as Round[],
  /** How the last automatic rounds ended. */
  autoEnd: '' as '' | 'reached' | 'stopped' | 'limit' | 'failed',
  stopping: false,
});

export const ready = () => readiness(teach.groups);

/** Whether answers of two models are on the table and their names are hidden. */
export const isBlind = () => teach.blind && new Set(teach.groups.flatMap((group) => group.answers.filter((one) => one.source === 'model').map((one) => one.model))).size > 1;

/** The model that would be trained, as far as it is one's own. */
export function target(): Target | undefined {
  const model = findModel(teach.model);
  if (!model || model.read_only) return undefined;
  return { id: model.id, base: model.base_model, revision: teach.known[model.id] ?? model.revision };
}

/** Whether the questions still are those that the answers answer. */
export function asksAnew(): boolean {
  const asked = teach.groups.map((group) => group.messages.map((message) => message.content).join('\n'));
  const system = teach.system.trim();
  const now = teach.prompts.map((prompt) => prompt.text.trim()).filter(Boolean);
  return JSON.stringify(asked) !== JSON.stringify(now.map((text) => (system ? `${system}\n${text}` : text)));
}

/** A rating was given or changed. */
export function rated(by: 'hand' | 'rule' = 'hand'): void {
  teach.settled = false;
  teach.byHand = by === 'hand';
  teach.preview = undefined;
}

/** Ratings that new answers would take away for good; 0 where all are trained or come from a rule. */
export function unsent(): number {
  if (teach.settled) return 0;
  const own = teach.groups.flatMap((group) => group.answers).filter((one) => one.source === 'mine' && one.text.trim()).length;
  return teach.byHand ? ready().rated : own;
}

/** All cards in another order. */
export function shuffle(): void {
  for (const group of teach.groups) group.answers = shuffled(group.answers);
}

/** A card with the reader's own words, rated as best. */
export function addOwn(group: Group): string {
  const id = newId();
  group.answers.push({ id, text: '', reasoning: '', source: 'mine', model: '', base: '', responseIds: [], cut: false, done: true, reward: 1 });
  return id;
}

export function removeCard(group: Group, id: string): void {
  group.answers = group.answers.filter((answer) => answer.id !== id);
  if (group.answers.length === 0) teach.groups = teach.groups.filter((other) => other !== group);
  rated();
}

export function findCard(id: string) {
  for (const group of teach.groups) {
    const answer = group.answers.find((one) => one.id === id);
    if (answer) return { group, answer };
  }
  return undefined;
}

// Ratings exist only here until they are trained.
addEventListener('beforeunload', (event) => {
  if (!teach.settled && ready().rated > 0) event.preventDefault();
});
