import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { type Call, LANGUAGES, snippet } from './snippets';

const ORIGIN = 'http://localhost:45678';
const NASTY = `It's "quoted" \\ $HOME \`id\` $(id)\n\ttab; é 日本 🐯 </script> true null None {x} %s`;
const call: Call = {
  method: 'POST',
  path: '/v1/train',
  body: {
    model: NASTY,
    messages: [{ role: 'user', content: NASTY }],
    dry_run: true,
    evaluate: false,
    seed: undefined,
    nothing: null,
    'true': 'null',
    text: 'x'.repeat(90) + ' true',
    reward: -0.5,
  },
};
const sent = JSON.parse(JSON.stringify(call.body)) as unknown;

/** What a language makes of the body, with everything but the body taken out of the snippet. */
it('curl sends the body that was meant', () => {
  const code = snippet(call, 'curl', ORIGIN);
  // A shell function in curl's place prints its last argument.
  const out = execFileSync('bash', ['-c', `curl() { printf %s "\${@: -1}"; }\n${code}`], { encoding: 'utf8' });
  expect(JSON.parse(out)).toEqual(sent);
});

it('Python sends the body that was meant', () => {
  const code = snippet(call, 'python', ORIGIN);
  const literal = /data=json\.dumps\((.*)\)\.encode\(\)\)\n/s.exec(code)?.[1] ?? '';
  const out = execFileSync('python3', ['-c', `import json\nprint(json.dumps(${literal}))`], { encoding: 'utf8' });
  expect(JSON.parse(out)).toEqual(sent);
});

it('JavaScript sends the body that was meant', () => {
  const code = snippet(call, 'javascript', ORIGIN);
  const literal = /body: JSON\.stringify\((.*)\)\n\}\);/s.exec(code)?.[1] ?? '';
  const out = execFileSync('node', ['-e', `process.stdout.write(JSON.stringify(${literal}))`], { encoding: 'utf8' });
  expect(JSON.parse(out)).toEqual(sent);
});

it.each(['GET', 'POST', 'PATCH', 'DELETE'] as const)('curl uses the method %s', (method) => {
  const code = snippet({ method, path: '/v1/models/mine', body: method === 'PATCH' || method === 'POST' ? { a: 1 } : undefined }, 'curl', ORIGIN);
  const out = execFileSync('bash', ['-c', `curl() { printf '%s\\n' "$@"; }\n${code}`], { encoding: 'utf8' }).split('\n');
  const at = out.indexOf('-X');
  const used = at >= 0 ? out[at + 1] : out.includes('-d') ? 'POST' : 'GET';
  expect(used).toBe(method);
  expect(out).toContain(`${ORIGIN}/v1/models/mine`);
});

it('takes the key from the environment, in every language', () => {
  for (const language of LANGUAGES) {
    const code = snippet(call, language, ORIGIN);
    expect(code).toContain('TIGER_API_KEY');
    expect(code).toContain(`${ORIGIN}/v1/train`);
  }
  const out = execFileSync('bash', ['-c', `curl() { printf '%s\\n' "$@"; }\n${snippet(call, 'curl', ORIGIN)}`], {
    encoding: 'utf8',
    env: { ...process.env, TIGER_API_KEY: 'tiger_x' },
  });
  expect(out).toContain('Authorization: Bearer tiger_x');
});

it('reads a stream line by line where it asked for one', () => {
  const streamed: Call = { method: 'POST', path: '/v1/generate_response', body: { model: 'tiger-nano', stream: true } };
  expect(snippet(streamed, 'curl', ORIGIN)).toContain('curl -N ');
  expect(snippet(streamed, 'python', ORIGIN)).toContain('for line in');
  expect(snippet(streamed, 'javascript', ORIGIN)).toContain('for await');
});

it('leaves short values on one line', () => {
  expect(snippet({ method: 'POST', path: '/v1/x', body: { a: [1, 2], b: {} } }, 'curl', ORIGIN)).toContain(`-d '{"a": [1, 2], "b": {}}'`);
});
