// The fields of a new model as typed, and the request they make; problems by field, as the server names its parameters. Pure.
import type { CreateModelRequest, ModelInfo } from '../api/types';
import { t } from '../../text';
import { nameProblem } from './slug';

export const NUMBERS = ['rank', 'alpha', 'dropout', 'learning_rate', 'seed', 'temperature', 'top_p', 'top_k', 'max_tokens'] as const;
export type NumberField = (typeof NUMBERS)[number];
export type Numbers = Record<NumberField, string>;
export type Problems = Partial<Record<NumberField | 'name' | 'description' | 'parent_model', string>>;

export const emptyNumbers = (): Numbers => Object.fromEntries(NUMBERS.map((field) => [field, ''])) as Numbers;

const MAX_RANK = 256;
/** Whole numbers above this are not exact in JSON's usual readers. */
const MAX_WHOLE = Number.MAX_SAFE_INTEGER;

/** Why a typed number does not do; undefined where it does, or is left empty. */
export function numberProblem(field: NumberField, typed: string): string | undefined {
  const text = typed.trim();
  if (!text) return undefined;
  const value = Number(text);
  const say = t.models.form;
  if (!Number.isFinite(value)) return say.number;
  const whole = (low: number, high: number) => (Number.isInteger(value) && value >= low && value <= high ? undefined : say.whole(low, high));
  switch (field) {
    case 'rank':
      return whole(1, MAX_RANK);
    case 'seed':
    case 'top_k':
      return whole(0, MAX_WHOLE);
    case 'max_tokens':
      return whole(1, MAX_WHOLE);
    case 'dropout':
      return value >= 0 && value < 1 ? undefined : say.between(0, 0.99);
    case 'temperature':
      return value >= 0 && value <= 2 ? undefined : say.between(0, 2);
    case 'top_p':
      return value > 0 && value <= 1 ? undefined : say.between(0.01, 1);
    default:
      return value > 0 ? undefined : say.above;
  }
}

export interface Form {
  parent?: ModelInfo;
  name: string;
  description: string;
  numbers: Numbers;
}

/** The request, or what is wrong. `names` are those of the account. */
export function requestOf(form: Form, names: Iterable<string>): { request?: CreateModelRequest; problems: Problems } {
  const problems: Problems = {};
  const say = t.models.form;
  const name = nameProblem(form.name, names);
  if (name) problems.name = { empty: say.nameEmpty, long: say.nameLong, characters: say.nameCharacters, taken: say.nameTaken }[name];
  const { parent } = form;
  if (parent?.status === 'not_downloaded') problems.parent_model = say.notHere(parent.name);
  const numbers: Partial<Record<NumberField, number>> = {};
  for (const field of NUMBERS) {
    // A copy of a private model has its parent's rank.
    if (field === 'rank' && parent && !parent.read_only) continue;
    const problem = numberProblem(field, form.numbers[field]);
    if (problem) problems[field] = problem;
    else if (form.numbers[field].trim()) numbers[field] = Number(form.numbers[field]);
  }
  if (!parent || Object.keys(problems).length > 0) return { problems };
  return { request: { name: form.name.trim(), description: form.description.trim(), parent_model: parent.id, ...numbers }, problems };
}

/** A repository of the hub: `owner/name`. */
export const isRepository = (text: string) => /^[\w.-]+\/[\w.-]+$/.test(text.trim()) && !/^\.|\/\./.test(text.trim());
