// The reference describes the server that it came from, and every example on it runs as shown, from top to bottom, in every language.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CreateKeyResponse } from '../src/lib/api/types';
import { keyOf } from '../src/lib/reference/groups';
import { type OpenApi, Reader } from '../src/lib/reference/openapi';
import { openBrowser, Server, type Visit } from './harness';

const run = promisify(execFile);
let server: Server;
let browser: Browser;
let key: string;

beforeAll(async () => {
  server = await Server.start();
  browser = await openBrowser();
  key = (await server.call<CreateKeyResponse>('POST', '/api/keys', { name: 'reference' })).key;
});

afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

async function open(path = '/reference'): Promise<Visit> {
  const visit = await server.visit(browser, { reducedMotion: 'reduce' });
  await visit.page.goto(server.url(path));
  await visit.page.locator('#post-v1-train').waitFor({ state: 'attached' });
  return visit;
}

const COMMANDS: Record<string, (code: string) => [string, string[]]> = {
  curl: (code) => ['bash', ['-c', code]],
  Python: (code) => ['python3', ['-c', code]],
  JavaScript: (code) => ['node', ['--input-type=module', '-e', code]],
};

for (const [language, command] of Object.entries(COMMANDS)) {
  test(`every example runs as shown in ${language}`, async () => {
    const visit = await open();
    await visit.page.locator('#post-v1-generate-response').getByRole('radio', { name: language }).check({ force: true });
    const sections = await visit.page.locator('[data-section]:has(.examples), #auth, #streaming').evaluateAll((all) =>
      all.map((section) => ({ id: section.id, code: [...section.querySelectorAll('pre')].map((pre) => pre.textContent ?? '') })),
    );
    let ran = 0;
    for (const { id, code } of sections) {
      for (const text of code) {
        // In the guides there are also lines to look at and one that waits for a paste.
        if (['auth', 'streaming'].includes(id) && !/^(curl |import |const )/.test(text)) continue;
        // Endpoints without a key have one line for the shell.
        const [program, args] = /^curl /.test(text) ? COMMANDS.curl!(text) : command(text);
        const { stdout } = await run(program, args, { env: { PATH: process.env.PATH, TIGER_API_KEY: key } }).catch((failed: Error) => {
          throw new Error(`${id} in ${language}: ${failed.message}\n${text}`);
        });
        expect(stdout, `${id}: ${text}`).not.toBe('');
        // curl prints refusals and ends well, so what it printed is read.
        expect(stdout, `${id}: ${text}`).not.toMatch(/"error" *:|"type":"error"/);
        if (text.includes('"stream": true')) expect(stdout, `${id}: ${text}`).toMatch(/end_turn|max_tokens/);
        ran++;
      }
    }
    expect(ran).toBeGreaterThanOrEqual(18);
    await visit.close();
  });
}

test('every endpoint of the server is there, and every one of /v1 has an example', async () => {
  const visit = await open();
  const document = (await (await fetch(`${server.api}/openapi.json`)).json()) as OpenApi;
  const endpoints = new Reader(document).endpoints();
  expect(endpoints.length).toBeGreaterThan(20);
  for (const endpoint of endpoints) {
    const section = visit.page.locator(`#${endpoint.id}`);
    expect(await section.count(), keyOf(endpoint)).toBe(1);
    // Examples are calls in JSON; an adapter is a form with two files, which docs/files.md shows.
    if (!endpoint.path.startsWith('/v1/') || endpoint.path === '/v1/adapters') continue;
    expect(await section.locator('.examples pre').count(), keyOf(endpoint)).toBeGreaterThan(0);
  }
  // The page's own routes are folded.
  expect(await visit.page.locator('#get-api-session').isVisible()).toBe(false);
  await visit.close();
});

test('a deep link opens at its section, and the list follows the page', async () => {
  const visit = await open('/reference#post-v1-train');
  const { page } = visit;
  const current = () => page.getByRole('navigation', { name: 'Contents' }).locator('[aria-current]').getAttribute('href');
  await expect.poll(async () => (await page.locator('#post-v1-train').boundingBox())?.y ?? 9999).toBeLessThan(120);
  await expect.poll(current).toBe('#post-v1-train');
  await page.getByRole('navigation', { name: 'Contents' }).getByRole('link', { name: 'Errors' }).click();
  await expect.poll(current).toBe('#errors');
  expect(page.url()).toContain('#errors');
  // One that is folded is unfolded.
  await page.getByRole('navigation', { name: 'Contents' }).locator('[href="#get-api-session"]').click();
  await expect.poll(() => page.locator('#get-api-session').isVisible()).toBe(true);
  await visit.close();
});

test('the filter finds fields, and says when nothing fits', async () => {
  const visit = await open();
  const { page } = visit;
  const filter = page.getByRole('searchbox', { name: 'Filter the reference' }).first();
  await filter.fill('kl_limit');
  await expect.poll(() => page.locator('[data-section]').count()).toBe(1);
  await page.getByRole('heading', { name: '/v1/train' }).waitFor();
  await filter.fill('no such thing');
  await page.getByText('Nothing fits').waitFor();
  await visit.expectAccessible('nothing fits');
  await page.getByRole('button', { name: 'Clear the filter' }).click();
  await page.locator('#start').waitFor();
  // Everything that unfolds, unfolded.
  await page.locator('details').evaluateAll((all) => all.forEach((one) => ((one as HTMLDetailsElement).open = true)));
  await visit.expectAccessible('everything unfolded');
  await visit.close();
});

test('on a narrow screen a select goes to a section', async () => {
  const visit = await server.visit(browser, { viewport: { width: 360, height: 740 } });
  await visit.page.goto(server.url('/reference'));
  await visit.page.getByRole('combobox', { name: 'Go to' }).selectOption({ label: 'POST /v1/train' });
  await expect.poll(async () => (await visit.page.locator('#post-v1-train').boundingBox())?.y ?? 9999).toBeLessThan(200);
  const over = await visit.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  expect(over).toBeLessThanOrEqual(0);
  await visit.close();
});
