// The examples of the README, run as they stand and in their order, against the real program.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { NotFoundError, TigerCity } from 'tigercity';

const WANTED: Record<string, RegExp> = {
  Chat: /^[^]*Paris[^]*Madrid[^]* \d+\n$/,
  Stream: /^[^]*[Gg]reen[^]*\nend_turn\n$/,
  'Train by rewards': /^1 0\.\d+ \[.*\]\n$/,
  'Roll back': /^1 train_\d+ true\n0 undefined true\n2\n$/,
  Adapters: /^pirate-again 0\n$/,
  Errors: /^there is no model `nobody`.* model_not_found req_\w+\n$/,
};

test('every example runs', async () => {
  // The other package's examples may have left theirs.
  await new TigerCity().models.delete('pirate').catch((error: unknown) => assert.ok(error instanceof NotFoundError));
  const readme = readFileSync('README.md', 'utf8');
  assert.deepEqual([...readme.matchAll(/^## (.+)\n\n```ts/gm)].map(([, name]) => name), Object.keys(WANTED));
  // They may leave files.
  const cwd = mkdtempSync(join(tmpdir(), 'tiger-readme-'));
  for (const [name, wanted] of Object.entries(WANTED)) {
    const file = resolve(`build/readme/${name.toLowerCase().replaceAll(' ', '-')}.js`);
    assert.match(execFileSync(process.execPath, [file], { cwd, encoding: 'utf8', timeout: 60_000 }), wanted, name);
  }
  rmSync(cwd, { recursive: true });
});
