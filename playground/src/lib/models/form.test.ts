// What is typed becomes a request, or problems at their fields.
import { expect, test } from 'vitest';
import type { ModelInfo } from '../api/types';
import { emptyNumbers, isRepository, numberProblem, requestOf } from './form';

const nano = { id: 'tiger-nano', name: 'Tiger-Nano', read_only: true, status: 'ready' } as ModelInfo;

test('only what was typed is sent', () => {
  const form = { parent: nano, name: ' Pirate ', description: ' arr ', numbers: emptyNumbers() };
  expect(requestOf(form, []).request).toEqual({ name: 'Pirate', description: 'arr', parent_model: 'tiger-nano' });
  const numbers = { ...emptyNumbers(), rank: '8', dropout: '0', learning_rate: '1e-4' };
  expect(requestOf({ ...form, numbers }, []).request).toMatchObject({ rank: 8, dropout: 0, learning_rate: 1e-4 });
});

test('a copy of a private model sends no rank', () => {
  const form = { parent: { ...nano, read_only: false }, name: 'x', description: '', numbers: { ...emptyNumbers(), rank: '8' } };
  expect(requestOf(form, []).request).not.toHaveProperty('rank');
});

test('problems by field', () => {
  const numbers = { ...emptyNumbers(), rank: '0', alpha: 'x', dropout: '1', temperature: '3', top_p: '0', top_k: '1.5', max_tokens: '0' };
  const { request, problems } = requestOf({ parent: { ...nano, status: 'not_downloaded' }, name: '', description: '', numbers }, []);
  expect(request).toBeUndefined();
  expect(Object.keys(problems).sort()).toEqual(['alpha', 'dropout', 'max_tokens', 'name', 'parent_model', 'rank', 'temperature', 'top_k', 'top_p']);
  expect(numberProblem('seed', '')).toBeUndefined();
  expect(numberProblem('learning_rate', '-1')).toBeTruthy();
});

test('repositories', () => {
  expect(isRepository(' HuggingFaceTB/SmolLM2-135M ')).toBe(true);
  for (const bad of ['', 'name', '/name', 'a/b/c', '../b', 'a/..', 'a b/c', '/etc/x']) expect(isRepository(bad), bad).toBe(false);
});
