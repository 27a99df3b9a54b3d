// What holds of every page: accessible in both themes, nothing sideways at 360 px and at 4k, a first load within its budget.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openBrowser, Server, type Visit } from './harness';
import { PIRATE, seedChats, seedKeys, seedModel } from './seed';

/** Bytes that a first visit may transfer, compressed: design's 150 kB. */
const FIRST_LOAD_BYTES = 150_000;

let server: Server;
let browser: Browser;
let paths: string[];

beforeAll(async () => {
  server = await Server.start();
  browser = await openBrowser();
  await seedKeys(server);
  await seedModel(server, 3);
  const chats = await seedChats(server);
  paths = ['/chat', `/chat/${chats[1]}`, '/teach', '/models', `/models/${PIRATE.id}`, '/keys', '/usage', '/reference', '/account'];
});

afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

async function open(visit: Visit, path: string): Promise<void> {
  await visit.page.goto(server.url(path));
  await visit.page.getByRole('heading', { level: 1 }).first().waitFor({ state: 'attached' });
  await visit.page.waitForLoadState('networkidle');
}

for (const colorScheme of ['light', 'dark'] as const) {
  test(`axe finds nothing on any page, ${colorScheme}`, async () => {
    const visit = await server.visit(browser, { colorScheme, reducedMotion: 'reduce' });
    for (const path of paths) {
      await open(visit, path);
      await visit.expectAccessible(path);
    }
    await visit.close();
    const stranger = await server.visit(browser, { colorScheme, reducedMotion: 'reduce', signedIn: false });
    for (const path of ['/signin', '/invite']) {
      await open(stranger, path);
      await stranger.expectAccessible(path);
    }
    await stranger.close();
  });
}

for (const [width, height] of [
  [360, 740],
  [3840, 2160],
] as const) {
  test(`no page scrolls sideways at ${width}`, async () => {
    const visit = await server.visit(browser, { viewport: { width, height } });
    for (const path of paths) {
      await open(visit, path);
      const over = await visit.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      expect(over, path).toBeLessThanOrEqual(0);
    }
    await visit.close();
  });
}

test('an idle page asks little: at most four requests in three seconds', async () => {
  const visit = await server.visit(browser);
  for (const path of paths) {
    await open(visit, path);
    // What it asks to be complete has been asked by now.
    await visit.page.waitForTimeout(500);
    const asked: string[] = [];
    const note = (request: { url(): string }) => asked.push(request.url());
    visit.page.on('request', note);
    await visit.page.waitForTimeout(3000);
    visit.page.off('request', note);
    expect(asked.length, `${path}: ${asked.join(' ')}`).toBeLessThanOrEqual(4);
    if (path === '/usage') expect(asked.length, path).toBeGreaterThan(0);
  }
  await visit.close();
});

test.skipIf(!!process.env.E2E_DEV)('the first load stays within its budget', async () => {
  const visit = await server.visit(browser);
  let bytes = 0;
  const measured: Promise<void>[] = [];
  visit.page.on('requestfinished', (request) => {
    measured.push(request.sizes().then((sizes) => void (bytes += sizes.responseBodySize)));
  });
  await open(visit, '/');
  await visit.page.waitForURL('**/chat');
  await visit.page.waitForLoadState('networkidle');
  await Promise.all(measured);
  expect(bytes).toBeGreaterThan(10_000);
  expect(bytes).toBeLessThan(FIRST_LOAD_BYTES);
  await visit.close();
});
