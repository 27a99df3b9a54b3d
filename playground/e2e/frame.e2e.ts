// The frame around all pages: navigation, themes, the `?` sheet, unknown addresses, the menu of narrow screens.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
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

test('every page of the navigation opens and names itself', async () => {
  const visit = await server.visit(browser);
  await visit.page.goto(server.url('/'));
  await visit.page.waitForURL('**/chat');
  for (const name of ['Teach', 'Models', 'ApiKeys', 'Usage', 'API reference', 'Chat']) {
    await visit.page.getByRole('navigation').getByRole('link', { name, exact: true }).click();
    await expect.poll(() => visit.page.title()).toBe(`${name} · TigerCity`);
    await visit.page.getByRole('heading', { level: 1 }).first().waitFor({ state: 'attached' });
  }
  await visit.close();
});

test('the theme is chosen by hand and kept', async () => {
  const visit = await server.visit(browser, { colorScheme: 'light' });
  await visit.page.goto(server.url('/keys'));
  const background = () => visit.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await visit.page.getByRole('heading', { level: 1 }).waitFor();
  const light = await background();
  await visit.page.getByRole('radio', { name: 'Dark' }).check({ force: true });
  const dark = await background();
  expect(dark).not.toBe(light);
  await visit.page.reload();
  await visit.page.getByRole('heading', { level: 1 }).waitFor();
  expect(await background()).toBe(dark);
  await visit.close();
});

test('the ? sheet, and an address that does not exist', async () => {
  const visit = await server.visit(browser);
  await visit.page.goto(server.url('/usage'));
  await visit.page.getByRole('heading', { level: 1 }).waitFor();
  await visit.page.keyboard.press('?');
  await visit.page.getByRole('dialog', { name: 'Keyboard' }).waitFor();
  await visit.page.keyboard.press('Escape');
  await expect.poll(() => visit.page.getByRole('dialog').count()).toBe(0);
  await visit.page.evaluate(() => {
    history.pushState(null, '', '/models/a/b');
    dispatchEvent(new PopStateEvent('popstate'));
  });
  await visit.page.getByText('There is no such page').waitFor();
  await visit.close();
});

test('at 360 px the menu opens and closes behind a link', async () => {
  const visit = await server.visit(browser, { viewport: { width: 360, height: 740 } });
  await visit.page.goto(server.url('/keys'));
  await visit.page.getByRole('button', { name: 'Menu' }).click();
  await visit.page.getByRole('link', { name: 'Models', exact: true }).click();
  await expect.poll(() => visit.page.title()).toBe('Models · TigerCity');
  await expect.poll(() => visit.page.getByRole('link', { name: 'Usage', exact: true }).isVisible()).toBe(false);
  await visit.close();
});

test.skipIf(!!process.env.E2E_DEV)('the watch over every journey notices errors, policy violations and foreign requests', async () => {
  const visit = await server.visit(browser);
  await visit.page.goto(server.url('/keys'));
  await visit.page.getByRole('heading', { level: 1 }).waitFor();
  visit.expectQuiet();
  await visit.page.evaluate(() => {
    console.error('made on purpose');
    document.body.insertAdjacentHTML('beforeend', '<p style="color: red">inline</p><img src="http://127.0.0.1:9/x.png" alt="" />');
    setTimeout(() => {
      throw new Error('thrown on purpose');
    });
  });
  const noticed = (pattern: RegExp) => expect.poll(() => visit.problems.some((problem) => pattern.test(problem))).toBe(true);
  await noticed(/^console: made on purpose/);
  await noticed(/^exception: .*thrown on purpose/);
  await noticed(/^console: .*Content Security Policy.*style/);
  await noticed(/^console: .*Content Security Policy.*(img|image)|left the origin: http:\/\/127\.0\.0\.1:9/);
  expect(() => visit.expectQuiet()).toThrow();
  await visit.context.close();
});
