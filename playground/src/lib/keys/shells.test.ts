import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { likelyShell, SHELLS, shellLines } from './shells';

const KEY = `tiger_${'Ab-_9'.repeat(8)}xyz`;
const ORIGIN = 'http://localhost:45678';

it('sets TIGER_API_KEY in every shell', () => {
  for (const shell of SHELLS) {
    const lines = shellLines(shell, KEY, ORIGIN);
    expect(lines.session).toContain('TIGER_API_KEY');
    expect(lines.session).toContain(KEY);
    expect(lines.keep).toContain(KEY);
    // The request takes the key from the environment.
    expect(lines.first).not.toContain(KEY);
    expect(lines.first).toContain('TIGER_API_KEY');
    expect(lines.first).toContain(`${ORIGIN}/v1/generate_response`);
  }
  expect(shellLines('bash', KEY, ORIGIN).session).toBe(`export TIGER_API_KEY=${KEY}`);
});

it('keeps it in a file of the user alone, which bash loads', () => {
  const home = mkdtempSync(join(tmpdir(), 'tiger-shell-'));
  try {
    const env = { PATH: process.env.PATH, HOME: home };
    execFileSync('bash', ['-c', shellLines('bash', KEY, ORIGIN).keep], { env });
    expect(statSync(join(home, '.tiger_key')).mode & 0o777).toBe(0o600);
    const found = execFileSync('bash', ['-c', '. ~/.bashrc; printf %s "$TIGER_API_KEY"'], { env, encoding: 'utf8' });
    expect(found).toBe(KEY);
    expect(readFileSync(join(home, '.bashrc'), 'utf8')).not.toContain(KEY);
  } finally {
    rmSync(home, { recursive: true });
  }
});

it('escapes quotation marks for cmd', () => {
  const line = shellLines('cmd', KEY, ORIGIN).first.split('\n').at(-1) ?? '';
  const argument = /^ {2}-d "(.*)"$/.exec(line)?.[1];
  expect(JSON.parse((argument ?? '').replaceAll('\\"', '"'))).toMatchObject({ model: 'tiger-nano' });
});

it.each([
  ['Linux x86_64', 'bash'],
  ['MacIntel', 'zsh'],
  ['Win32', 'powershell'],
  ['', 'bash'],
] as const)('%s most likely has %s', (platform, shell) => {
  expect(likelyShell(platform)).toBe(shell);
});
