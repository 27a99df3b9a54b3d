// What was used is counted by day, model and key, also by keys that are gone; the server's state is renewed while it is looked at.
import { readFileSync } from 'node:fs';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CreateKeyResponse, UsageRow } from '../src/lib/api/types';
import { openBrowser, Server } from './harness';

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

const question = { model: 'tiger-nano', messages: [{ role: 'user', content: 'What is the capital of Peru?' }] };

test('counts what was used, by model and by key, and gives it as CSV', async () => {
  const visit = await server.visit(browser, { reducedMotion: 'reduce' });
  const { page } = visit;
  await page.goto(server.url('/usage'));
  await page.getByText('Nothing used in this time').waitFor();
  await visit.expectAccessible('nothing used');

  const { key, id } = await server.call<CreateKeyResponse>('POST', '/api/keys', { name: 'short-lived' });
  for (let times = 0; times < 3; times++) {
    const response = await fetch(`${server.api}/v1/generate_response`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify(question),
    });
    expect(response.status).toBe(200);
  }
  await server.call('DELETE', `/api/keys/${id}`);
  await server.call('POST', '/v1/generate_response', question);
  await server.call('POST', '/v1/models', { name: 'Counted', description: '', parent_model: 'tiger-nano' });
  await server.call('POST', '/v1/train', {
    model: 'counted',
    messages: question.messages,
    responses: [
      { content: 'Lima', reward: 1 },
      { content: 'Quito', reward: 0 },
    ],
  });
  // The server writes it down a moment later.
  await expect.poll(async () => (await server.call<UsageRow[]>('GET', '/api/usage?days=7')).reduce((sum, row) => sum + row.requests, 0)).toBe(5);

  await page.reload();
  const total = (name: string) => page.locator('.tiles > div').filter({ hasText: name }).locator('dd').textContent();
  await page.getByRole('heading', { name: 'By model' }).waitFor();
  expect(await total('Requests')).toBe('5');
  expect(await total('Trainings')).toBe('1');
  const byKey = page.getByRole('table').filter({ hasText: 'Key' });
  expect(await byKey.getByRole('row', { name: /short-lived/ }).getByRole('cell').first().textContent()).toBe('3');
  expect(await byKey.getByRole('row', { name: /Playground/ }).getByRole('cell').first().textContent()).toBe('2');
  await page.getByRole('row', { name: /counted/i }).waitFor();

  // The chart says in words, and in a table, what it shows.
  await page.getByRole('radio', { name: 'Requests' }).check({ force: true });
  await page.getByRole('img', { name: /Requests by day from .* most on .*: 5\./ }).waitFor();
  await page.getByText('Show as a table').click();
  expect(await page.getByRole('group', { name: 'Requests' }).getByRole('row').nth(1).textContent()).toMatch(/4\s*1\s*0\s*5$/);
  await page.getByRole('radio', { name: '7 days' }).check({ force: true });
  await expect.poll(() => page.getByRole('group', { name: 'Requests' }).getByRole('row').count()).toBe(8);
  await visit.expectAccessible('used');

  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download CSV' }).click()]);
  const text = readFileSync(await download.path(), 'utf8');
  expect(download.suggestedFilename()).toMatch(/^tigercity-usage-\d{4}-\d\d-\d\d-7-days\.csv$/);
  expect(text.split('\r\n')[0]).toContain('input_tokens');
  expect(text).toContain('short-lived');
  await visit.close();
});

test('says when the server is gone, and goes on when it is back', async () => {
  const visit = await server.visit(browser, { reducedMotion: 'reduce' });
  visit.allow(/ERR_CONNECTION|ERR_EMPTY|status of 50\d/);
  await visit.page.goto(server.url('/usage'));
  await visit.page.getByText('Running for').waitFor();
  await server.kill();
  await visit.page.getByText('No news since').waitFor();
  await server.begin();
  await visit.page.getByText('renewed every 2 seconds').waitFor({ timeout: 15_000 });
  await visit.close();
});
