// What is given to be imported becomes a form, or problems at their fields. Reads the configuration for what it suggests only; the server checks it.
import type { ModelInfo } from '../api/types';
import { bytes } from '../format';
import { t } from '../../text';
import { nameProblem } from './slug';

export type FileField = 'adapter_config' | 'adapter_model';
export const FILE_FIELDS: readonly FileField[] = ['adapter_config', 'adapter_model'];
export type Files = Partial<Record<FileField, File>>;
export type ImportProblems = Partial<Record<FileField | 'files' | 'name' | 'description' | 'parent_model', string>>;

/** What the server takes: `limits.rs`. */
const CONFIG_BYTES = 1 << 20;
const ALL_BYTES = 1 << 30;
const ENDINGS: Record<FileField, string> = { adapter_config: '.json', adapter_model: '.safetensors' };

/** Which of the given files are which; those of before stay where no other is given. */
export function sorted(given: readonly File[], before: Files = {}): { files: Files; problem?: string } {
  const files = { ...before };
  const say = t.importing.problems;
  let found = 0;
  for (const field of FILE_FIELDS) {
    const alike = given.filter((file) => file.name.toLowerCase().endsWith(ENDINGS[field]));
    // A folder has other files beside them; a browser may have numbered the right one.
    const file = given.find(({ name }) => name === t.importing.names[field]) ?? (alike.length === 1 ? alike[0] : undefined);
    if (!file && alike.length > 1) return { files: before, problem: say.several(ENDINGS[field]) };
    if (file) {
      files[field] = file;
      found++;
    }
  }
  const [first] = given;
  const old = given.find(({ name }) => name.endsWith('.bin'));
  if (old && !files.adapter_model) return { files, problem: say.old(old.name) };
  return found === 0 && first ? { files, problem: say.other(first.name) } : { files };
}

/** What an `adapter_config.json` says of itself; nothing that is wrong in it is told but that it is no JSON. */
export interface Facts {
  rank?: number;
  modules: string[];
  base?: string;
}

export function factsOf(text: string): Facts | undefined {
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof config !== 'object' || config === null) return undefined;
  const { r, target_modules, base_model_name_or_path } = config as Record<string, unknown>;
  return {
    rank: typeof r === 'number' ? r : undefined,
    modules: Array.isArray(target_modules) ? target_modules.filter((one) => typeof one === 'string') : [],
    base: typeof base_model_name_or_path === 'string' && base_model_name_or_path ? base_model_name_or_path : undefined,
  };
}

/** The linear maps of a layer. */
const MAPS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];

/** Where it changes the base, in words. */
export function modulesOf({ modules }: Facts): string {
  if (modules.length === 0) return t.importing.pattern;
  return MAPS.every((map) => modules.includes(map)) ? t.importing.everything : modules.join(', ');
}

/** The base that a file names: by its id, its name, or the last part of a repository or path; a listed base by the beginning of that. */
export function baseNamed(named: string | undefined, bases: readonly ModelInfo[]): ModelInfo | undefined {
  const whole = named?.trim().replace(/[/\\]+$/, '').toLowerCase();
  const last = whole?.split(/[/\\]/).at(-1);
  if (!whole || !last) return undefined;
  const is = (model: ModelInfo, text: string) => model.id === text || model.name.toLowerCase() === text;
  const exact = bases.find((model) => is(model, whole)) ?? bases.find((model) => is(model, last));
  if (exact) return exact;
  // Llama-3.1-8b is meta-llama/Llama-3.1-8B-Instruct.
  return bases.find((model) => last.startsWith(`${model.name.toLowerCase()}-`));
}

/** A free name: `stem`, `stem 2`, … */
export function freeName(stem: string, names: Iterable<string>): string {
  const taken = new Set([...names].map((name) => name.toLowerCase()));
  for (let number = 1; ; number++) {
    const name = number === 1 ? stem : `${stem} ${number}`;
    if (!taken.has(name.toLowerCase())) return name;
  }
}

export interface Import {
  files: Files;
  facts?: Facts;
  base?: ModelInfo;
  name: string;
  description: string;
}

/** The form of the request, or what is wrong. `names` are those of the account. */
export function formOf(given: Import, names: Iterable<string>): { form?: FormData; problems: ImportProblems } {
  const problems: ImportProblems = {};
  const say = t.importing.problems;
  const { adapter_config: config, adapter_model: model } = given.files;
  if (!config && !model) problems.files = say.none;
  else if (!config) problems.adapter_config = say.config;
  else if (!model) problems.adapter_model = say.model;
  for (const field of FILE_FIELDS) if (given.files[field]?.size === 0) problems[field] = say.empty(t.importing.names[field]);
  if (config && config.size > CONFIG_BYTES) problems.adapter_config = say.configLarge;
  else if (config && config.size > 0 && !given.facts) problems.adapter_config = say.json;
  const all = (config?.size ?? 0) + (model?.size ?? 0);
  // The form has some bytes of its own.
  if (all > ALL_BYTES - 4 * CONFIG_BYTES) problems.adapter_model = say.large(bytes(all));
  const name = nameProblem(given.name, names);
  const { nameEmpty, nameLong, nameCharacters, nameTaken } = t.models.form;
  if (name) problems.name = { empty: nameEmpty, long: nameLong, characters: nameCharacters, taken: nameTaken }[name];
  if (!given.base) problems.parent_model = t.importing.baseNone;
  if (!config || !model || !given.base || Object.keys(problems).length > 0) return { problems };
  const form = new FormData();
  form.append('name', given.name.trim());
  form.append('description', given.description.trim());
  form.append('parent_model', given.base.id);
  form.append('adapter_config', config);
  form.append('adapter_model', model);
  return { form, problems };
}
