// What is given to be imported becomes a form, or problems at their fields.
import { expect, test } from 'vitest';
import type { ModelInfo } from '../api/types';
import { baseNamed, factsOf, formOf, freeName, modulesOf, sorted } from './importing';

const file = (name: string, size = 2) => {
  const made = new File(['{}'], name);
  Object.defineProperty(made, 'size', { value: size });
  return made;
};
const CONFIG = file('adapter_config.json');
const WEIGHTS = file('adapter_model.safetensors', 1000);
const base = (id: string, name: string) => ({ id, name, read_only: true, status: 'ready' }) as ModelInfo;
const NANO = base('tiger-nano', 'Tiger-Nano');
const LLAMA = base('llama-3.1-8b', 'Llama-3.1-8b');

test('files are told apart by their names', () => {
  const both = { files: { adapter_config: CONFIG, adapter_model: WEIGHTS } };
  expect(sorted([WEIGHTS, CONFIG])).toEqual(both);
  // A whole folder.
  expect(sorted([file('README.md'), file('tokenizer.json'), WEIGHTS, CONFIG, file('training_args.bin')])).toEqual(both);
  // One after the other, and again.
  expect(sorted([CONFIG], { adapter_model: WEIGHTS })).toEqual(both);
  const numbered = file('adapter_config (1).json');
  expect(sorted([numbered], both.files).files.adapter_config).toBe(numbered);
});

test('what is no adapter is told, and what was there stays', () => {
  const before = { adapter_config: CONFIG };
  expect(sorted([file('photo.png')], before)).toEqual({ files: before, problem: expect.stringContaining('photo.png') as string });
  expect(sorted([file('a.safetensors'), file('b.safetensors')], before)).toEqual({ files: before, problem: expect.stringContaining('several') as string });
  expect(sorted([CONFIG, file('adapter_model.bin')]).problem).toContain('safe_serialization');
  expect(sorted([], before)).toEqual({ files: before });
});

test('a configuration suggests', () => {
  expect(factsOf('{"r": 8, "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "a/b"}')).toEqual({
    rank: 8,
    modules: ['q_proj', 'v_proj'],
    base: 'a/b',
  });
  expect(factsOf('{"r": "8", "target_modules": ".*", "base_model_name_or_path": null}')).toEqual({ rank: undefined, modules: [], base: undefined });
  for (const text of ['', '{', 'null', '3']) expect(factsOf(text), text).toBeUndefined();
});

test('modules in words', () => {
  const all = ['down_proj', 'gate_proj', 'k_proj', 'o_proj', 'q_proj', 'up_proj', 'v_proj'];
  expect(modulesOf({ modules: all })).toBe('all linear maps');
  expect(modulesOf({ modules: ['q_proj', 'v_proj'] })).toBe('q_proj, v_proj');
  expect(modulesOf({ modules: [] })).toBe('modules by pattern');
});

test('the base is found by what the file calls it', () => {
  const bases = [NANO, LLAMA];
  for (const named of ['Tiger-Nano', 'tiger-nano', '/home/ada/tiger-nano/', 'C:\\models\\Tiger-Nano']) expect(baseNamed(named, bases)).toBe(NANO);
  expect(baseNamed('meta-llama/Llama-3.1-8B-Instruct', bases)).toBe(LLAMA);
  for (const named of [undefined, '', '/', 'Qwen/Qwen2-7B', 'meta-llama/Llama-3.1-80B']) expect(baseNamed(named, bases)).toBeUndefined();
});

test('a free name', () => {
  expect(freeName('Tiger-Nano adapter', ['x'])).toBe('Tiger-Nano adapter');
  expect(freeName('Tiger-Nano adapter', ['tiger-nano ADAPTER', 'Tiger-Nano adapter 2'])).toBe('Tiger-Nano adapter 3');
});

const GIVEN = { files: { adapter_config: CONFIG, adapter_model: WEIGHTS }, facts: { modules: [] }, base: NANO, name: ' Pirate ', description: ' arr ' };

test('the form has the parts of the API', () => {
  const { form, problems } = formOf(GIVEN, []);
  expect(problems).toEqual({});
  expect([...(form?.keys() ?? [])]).toEqual(['name', 'description', 'parent_model', 'adapter_config', 'adapter_model']);
  expect([form?.get('name'), form?.get('description'), form?.get('parent_model')]).toEqual(['Pirate', 'arr', 'tiger-nano']);
});

test('problems by field', () => {
  const problems = (change: object) => Object.keys(formOf({ ...GIVEN, ...change }, ['Taken']).problems);
  expect(problems({ files: {} })).toEqual(['files']);
  expect(problems({ files: { adapter_config: CONFIG } })).toEqual(['adapter_model']);
  expect(problems({ files: { adapter_model: WEIGHTS } })).toEqual(['adapter_config']);
  expect(problems({ facts: undefined })).toEqual(['adapter_config']);
  expect(problems({ files: { ...GIVEN.files, adapter_config: file('c.json', 2 ** 21) } })).toEqual(['adapter_config']);
  expect(problems({ files: { ...GIVEN.files, adapter_model: file('w.safetensors', 0) } })).toEqual(['adapter_model']);
  expect(problems({ files: { ...GIVEN.files, adapter_model: file('w.safetensors', 2 ** 30) } })).toEqual(['adapter_model']);
  expect(problems({ name: 'Taken' })).toEqual(['name']);
  expect(problems({ base: undefined })).toEqual(['parent_model']);
});
