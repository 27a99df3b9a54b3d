// Names and descriptions as long as they may be, and more models and chats than fit on a screen.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openBrowser, Server, type Visit } from './harness';

const LONG = { name: 'W'.repeat(64), id: 'w'.repeat(64) };
const SENTENCES = { name: `A ${'very '.repeat(10)}long name`, description: 'It answers as somebody would who has a lot of time. '.repeat(300) };
const MODELS = 200;
const CHATS = 300;

let server: Server;
let browser: Browser;

beforeAll(async () => {
  server = await Server.start();
  browser = await openBrowser();
  const make = (body: object) => server.call<{ id: string }>('POST', '/v1/models', { parent_model: 'tiger-nano', description: '', ...body });
  const made = await make({ name: LONG.name, description: 'x'.repeat(16_000) });
  LONG.id = made.id;
  await make(SENTENCES);
  for (let at = 2; at < MODELS; at++) await make({ name: `Model ${at}` });
  const now = Date.now() / 1000;
  for (let at = 0; at < CHATS; at++) {
    const nodes = [{ id: 'u', role: 'user', content: `Question ${at}`, created: now }];
    await server.call('POST', '/api/chats', { title: at === CHATS - 1 ? 'T'.repeat(200) : `Chat ${at}`, model: LONG.id, system: '', settings: {}, nodes, leaf: 'u' });
  }
});

afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

const soon = <T>(look: () => T) => expect.poll(look, { timeout: 10_000 });

async function open(visit: Visit, path: string): Promise<Page> {
  await visit.page.goto(server.url(path));
  await visit.page.getByRole('heading', { level: 1 }).first().waitFor({ state: 'attached' });
  await visit.page.waitForLoadState('networkidle');
  return visit.page;
}

/** What can be seen and ends right of the window, also where its parent cuts it off; text behind an ellipsis is meant to be. */
const sticksOut = (page: Page) =>
  page.evaluate(() => {
    const scrolls = (one: Element | null): boolean => !!one && one !== document.body && (/auto|scroll|hidden/.test(getComputedStyle(one).overflowX) || scrolls(one.parentElement));
    const out = [...document.querySelectorAll('main *')].filter((one) => {
      const box = one.getBoundingClientRect();
      return box.width > 1 && box.right > innerWidth + 1 && !scrolls(one.parentElement);
    });
    return { out: out.slice(0, 5).map((one) => one.outerHTML.slice(0, 120)), over: document.documentElement.scrollWidth - innerWidth };
  });

test('the longest names break nothing at 360 px', async () => {
  const visit = await server.visit(browser, { viewport: { width: 360, height: 740 } });
  for (const path of ['/models', `/models/${LONG.id}`, `/chat?model=${LONG.id}`, `/teach?model=${LONG.id}`]) {
    const page = await open(visit, path);
    expect(await sticksOut(page), path).toEqual({ out: [], over: 0 });
    if (path.includes('?model=')) {
      const picker = page.getByRole('button', { name: new RegExp(LONG.name) }).first();
      // The revision stays whole beside the name that is cut.
      expect((await picker.boundingBox())!.height, path).toBeLessThan(48);
      expect((await picker.locator('.revision').boundingBox())!.height, path).toBeLessThan(24);
      await picker.click();
      await page.locator('input[role=combobox]').waitFor();
      const panel = (await page.locator('.panel:has([role=listbox])').boundingBox())!;
      expect(panel.x, path).toBeGreaterThanOrEqual(0);
      expect(panel.x + panel.width, path).toBeLessThanOrEqual(360);
      await page.keyboard.press('Escape');
    }
    // A description is no wall: what can be done is on the first screen.
    if (path.startsWith('/models/')) expect((await page.getByRole('main').getByRole('link', { name: 'Teach', exact: true }).boundingBox())!.y, path).toBeLessThan(700);
    await visit.expectAccessible(path);
  }
  await visit.close();
});

test('two hundred models are found, three hundred chats are reached', async () => {
  const visit = await server.visit(browser);
  const page = await open(visit, '/models');
  await soon(() => page.getByRole('list', { name: 'Yours' }).getByRole('listitem').count()).toBe(MODELS);
  await page.getByRole('searchbox').fill('model 137');
  await soon(() => page.getByRole('list', { name: 'Yours' }).getByRole('listitem').count()).toBe(1);

  await open(visit, '/chat');
  await page.getByRole('button', { name: /^Model:/ }).click();
  await page.keyboard.type('model 42');
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: /^Model: Model 42 / }).waitFor();

  const side = page.getByRole('complementary', { name: 'Conversations' });
  expect(await side.getByRole('link').count()).toBeLessThan(CHATS);
  await soon(async () => {
    await side.getByRole('link').last().scrollIntoViewIfNeeded();
    return side.getByRole('link').count();
  }).toBe(CHATS);
  await side.getByRole('link', { name: 'Chat 0', exact: true }).click();
  await page.getByRole('log').getByText('Question 0', { exact: true }).waitFor();
  await side.getByRole('searchbox').fill('question 217');
  await side.getByRole('link', { name: /^Chat 217/ }).click();
  await page.getByRole('log').getByText('Question 217').waitFor();
  await visit.close();
});
