// Writes the README's examples as programs (test/readme/NAME.ts), which the compiler then checks and readme.test.ts runs.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

rmSync('test/readme', { recursive: true, force: true });
mkdirSync('test/readme');
const readme = readFileSync('README.md', 'utf8');
for (const [, name, code] of readme.matchAll(/^## (.+)\n\n```ts\n([^]*?)```/gm)) {
  // Files of the package's own folder see Node's types alone, as a program in Node does.
  writeFileSync(`test/readme/${name.toLowerCase().replaceAll(' ', '-')}.ts`, code);
}
