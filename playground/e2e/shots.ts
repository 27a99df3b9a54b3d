// Takes pictures of every page in both themes at two widths into SHOTS (default e2e/shots). Checks nothing: people look.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { test } from 'vitest';
import { openBrowser, Server } from './harness';
import { PIRATE, seedChats, seedKeys, seedModel } from './seed';

const FOLDER = process.env.SHOTS ?? join(import.meta.dirname, 'shots');
const ONLY = process.env.ONLY;
const SIZES = [
  { name: 'wide', width: 1440, height: 900 },
  { name: 'narrow', width: 390, height: 844 },
];

/** A model that is trained for its picture, and made anew for the next. */
const SAILOR = { name: 'Sailor', id: 'sailor' };

/** What is done on a page before its picture. */
type Before = (page: Page) => Promise<void>;

const settle: Before = async (page) => {
  await page.waitForLoadState('networkidle').catch(() => undefined);
  await page.waitForTimeout(500);
};

test('pictures', async () => {
  mkdirSync(FOLDER, { recursive: true });
  const server = await Server.start();
  const fresh = await Server.start();
  const browser = await openBrowser();
  await seedKeys(server);
  await seedModel(server, 10);
  const [capitals, guide] = await seedChats(server);
  const pages: [string, string, Before?][] = [
    ['chat', `/chat/${guide}`],
    ['chat-branches', `/chat/${capitals}`],
    ['chat-new', '/chat'],
    ['teach', '/teach?model=tiger-nano'],
    ['teach-rated', `/teach?model=${SAILOR.id}`, rated],
    ['teach-trained', `/teach?model=${SAILOR.id}`, trained],
    ['model-history', `/models/${PIRATE.id}?view=history`],
    ['model-compare', `/models/${PIRATE.id}?view=compare`],
    ['models', '/models'],
    ['models-import', '/models', importing],
    ['model', `/models/${PIRATE.id}`],
    ['keys', '/keys'],
    ['usage', '/usage'],
    ['reference', '/reference'],
    ['account', '/account'],
  ];
  for (const scheme of ['light', 'dark'] as const) {
    for (const { name: size, width, height } of SIZES) {
      const options = { colorScheme: scheme, viewport: { width, height }, deviceScaleFactor: size === 'narrow' ? 2 : 1 };
      const visit = await server.visit(browser, options);
      for (const [name, path, before] of pages) {
        if (ONLY && !ONLY.split(',').includes(name)) continue;
        if (path.includes(SAILOR.id)) await makeSailor(server);
        await visit.page.goto(server.url(path));
        await settle(visit.page);
        await before?.(visit.page);
        await visit.page.screenshot({ path: join(FOLDER, `${name}-${size}-${scheme}.png`) });
      }
      await visit.context.close();
      const stranger = await fresh.visit(browser, { ...options, signedIn: false });
      for (const [name, path, on] of [['welcome', `/welcome#token=${fresh.setupToken}`, fresh], ['signin', '/signin', server]] as const) {
        if (ONLY && !ONLY.split(',').includes(name)) continue;
        await stranger.page.goto(on.url(path));
        await settle(stranger.page);
        await stranger.page.screenshot({ path: join(FOLDER, `${name}-${size}-${scheme}.png`) });
      }
      await stranger.context.close();
    }
  }
  await browser.close();
  await fresh.stop();
  await server.stop();
});

async function makeSailor(server: Server): Promise<void> {
  await server.call('DELETE', `/v1/models/${SAILOR.id}`).catch(() => undefined);
  await server.call('POST', '/v1/models', { name: SAILOR.name, description: '', parent_model: 'tiger-nano', seed: 5 });
}

/** Both files chosen, not sent. */
async function importing(page: Page): Promise<void> {
  const config = { r: 16, target_modules: ['q_proj', 'v_proj'], base_model_name_or_path: 'Tiger-Nano' };
  const files = { 'adapter_config.json': JSON.stringify(config), 'adapter_model.safetensors': 'x'.repeat(1_212_416) };
  await page.getByRole('button', { name: 'Import an adapter' }).first().click();
  const given = Object.entries(files).map(([name, content]) => ({ name, mimeType: '', buffer: Buffer.from(content) }));
  await page.locator('input[type=file]').setInputFiles(given);
  await page.waitForTimeout(400);
}

/** Answers to the six examples, rated by a rule. */
async function rated(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Use six examples', exact: true }).click();
  await page.getByRole('button', { name: 'Get answers', exact: true }).click();
  await page.getByRole('group', { name: 'Rate by a rule' }).getByRole('button', { name: 'Pirate' }).click();
  await page.getByRole('status').filter({ hasText: /rated · ready/ }).waitFor();
  await page.getByRole('heading', { name: 'Rate', exact: true }).scrollIntoViewIfNeeded();
  await page.evaluate(() => document.querySelector('h2')?.closest('section')?.nextElementSibling?.scrollIntoView());
  await page.waitForTimeout(400);
}

/** The same, trained once and asked again. */
async function trained(page: Page): Promise<void> {
  await rated(page);
  await page.getByRole('button', { name: 'Train', exact: true }).click();
  const asked = page.getByRole('heading', { name: 'Same prompts, asked again' });
  await asked.waitFor();
  await page.getByText(/of \d+/).last().waitFor();
  await page.waitForTimeout(1500);
  await page.getByRole('heading', { name: /^Revision \d+ → \d+$/ }).evaluate((heading) => heading.scrollIntoView());
  await page.waitForTimeout(400);
}
