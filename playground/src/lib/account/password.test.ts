import { expect, it } from 'vitest';
import { strength } from './password';

it.each([
  ['', 'short'],
  ['Xk9#fQ2', 'short'],
  ['aaaaaaaa', 'weak'],
  ['12345678', 'weak'],
  ['password1', 'weak'],
  ['tigertiger123', 'weak'],
  ['correct horse battery staple', 'strong'],
  ['correct horse', 'good'],
] as const)('%j is %s', (password, expected) => {
  expect(strength(password)).toBe(expected);
});

it('does not count the name', () => {
  expect(strength('grace-hopper-1', 'grace-hopper')).toBe('weak');
  expect(strength('grace-hopper-1')).not.toBe('weak');
});

it('counts characters, not UTF-16 units', () => {
  expect(strength('🦊🐯🐼🐨🦁🐮🐷')).toBe('short');
});
