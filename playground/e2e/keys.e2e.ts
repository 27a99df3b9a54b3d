// The documented way to a key, word for word: Playground, ApiKeys, (+), a name, the key once, copy, export, curl. And its end: revoked.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openBrowser, Server } from './harness';

const run = promisify(execFile);
let server: Server;
let browser: Browser;

beforeAll(async () => {
  server = await Server.start();
  browser = await openBrowser();
});

afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

/** Runs lines in a shell that has nothing of this process but its PATH. */
async function bash(lines: string): Promise<string> {
  return (await run('bash', ['-c', lines], { env: { PATH: process.env.PATH } })).stdout;
}

test('ApiKeys, (+), a name, the key once, copy, export, curl, revoke', async () => {
  const visit = await server.visit(browser, { reducedMotion: 'reduce' });
  const { page } = visit;
  await visit.context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: server.origin });
  await page.goto(server.url('/chat'));
  await page.getByRole('link', { name: 'ApiKeys' }).click();
  await page.getByText('No keys yet').waitFor();
  await page.getByRole('button', { name: 'Create a key', exact: true }).click();
  await page.getByRole('button', { name: 'Create', exact: true }).click();
  await page.getByText('Give the key a name.').waitFor();
  await page.getByLabel('Name').fill('laptop');
  await page.keyboard.press('Enter');
  const dialog = page.getByRole('dialog', { name: 'Save your key now' });
  await dialog.waitFor();
  await visit.expectAccessible('the key, once');

  // A slip of the finger does not lose it.
  for (let times = 0; times < 3; times++) await page.keyboard.press('Escape');
  await page.mouse.click(5, 5);
  expect(await dialog.isVisible()).toBe(true);

  await page.getByRole('button', { name: 'Copy the key' }).click();
  const key = await page.evaluate(() => navigator.clipboard.readText());
  expect(key).toMatch(/^tiger_[\w-]{43}$/);

  // The lines of the dialog, as shown.
  await dialog.getByRole('radio', { name: 'bash' }).check({ force: true });
  const code = await dialog.locator('pre').allTextContents();
  expect(code[0]).toBe(`export TIGER_API_KEY=${key}`);
  const answer = JSON.parse(await bash(`${code[0]}\n${code[2]}`)) as { message: { role: string; content: string } };
  expect(answer.message.role).toBe('assistant');
  expect(answer.message.content.length).toBeGreaterThan(0);
  for (const shell of ['zsh', 'cmd', 'PowerShell']) {
    await dialog.getByRole('radio', { name: shell }).check({ force: true });
    expect(await dialog.locator('pre').first().textContent()).toContain(key);
  }

  await page.getByRole('button', { name: 'I saved it' }).click();
  await expect.poll(() => dialog.count()).toBe(0);
  // The focus is where it was before.
  expect(await page.evaluate(() => document.activeElement?.getAttribute('aria-label'))).toBe('Create a key');

  // It is nowhere any more: not on the page, not in the address, not in what the browser keeps.
  expect(await page.content()).not.toContain(key);
  expect(page.url()).not.toContain('tiger_');
  const kept = await page.evaluate(async () => {
    const databases = await indexedDB.databases();
    const caches_ = await caches.keys();
    return JSON.stringify([{ ...localStorage }, { ...sessionStorage }, history.state, document.cookie, databases, caches_]);
  });
  expect(kept).not.toContain(key.slice(6));

  // The list knows it by its beginning, and that it was used.
  const row = page.getByRole('row').filter({ hasText: 'laptop' });
  await row.getByText(key.slice(0, 8)).waitFor();
  await page.reload();
  await row.waitFor();
  expect(await row.textContent()).not.toContain('never');

  // Revoked, it opens nothing.
  await page.getByRole('button', { name: 'Revoke laptop' }).click();
  await visit.expectAccessible('revoking');
  await page.getByRole('button', { name: 'Revoke the key' }).click();
  await page.getByText('“laptop” was revoked.').waitFor();
  await page.getByText('No keys yet').waitFor();
  const refused = await bash(`${code[0]}\ncurl -s -o /dev/null -w '%{http_code}' ${server.api}/v1/models -H "Authorization: Bearer $TIGER_API_KEY"`);
  expect(refused).toBe('401');
  await visit.close();
});

test('a server that does not answer is said, with a way to try again', async () => {
  const visit = await server.visit(browser, { reducedMotion: 'reduce' });
  visit.allow(/ERR_FAILED|status of 500/);
  let broken = true;
  await visit.page.route('**/api/keys', (route) =>
    broken
      ? route.fulfill({ status: 500, json: { error: { type: 'server', code: 'internal_error', message: 'It broke.', request_id: 'req_test' } } })
      : route.continue(),
  );
  await visit.page.goto(server.url('/keys'));
  await visit.page.getByText('req_test').waitFor();
  await visit.expectAccessible('an error');
  broken = false;
  await visit.page.getByRole('button', { name: 'Try again' }).click();
  await visit.page.getByText('No keys yet').waitFor();
  await visit.close();
});
