// The loop that the product is about: ask, rate, train, compare, take back, and by itself until it is better.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openBrowser, Server } from './harness';

interface Revision {
  revision: number;
  rolled_back_to?: number;
}
interface Sent {
  model: string;
  messages?: unknown[];
  responses?: { content?: string; response_id?: string; reward: number }[];
  batch?: { responses: { reward: number }[] }[];
  stream: boolean;
}

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

beforeEach(async () => {
  const models = await server.call<{ id: string; read_only: boolean }[]>('GET', '/v1/models');
  for (const model of models.filter((one) => !one.read_only)) await server.call('DELETE', `/v1/models/${model.id}`);
});

const button = (page: Page, name: string) => page.getByRole('button', { name, exact: true });
const rateBar = (page: Page) => page.getByRole('group', { name: 'Rate by a rule' });

async function open(page: Page, path = '/teach') {
  await page.goto(server.url(path));
  await page.getByRole('heading', { name: 'Teach', level: 1 }).waitFor();
}

async function getAnswers(page: Page, prompt?: string) {
  if (prompt) await page.getByPlaceholder('Ask something').fill(prompt);
  await button(page, 'Get answers').click();
  await button(page, 'Get new answers').waitFor();
  await expect.poll(() => button(page, 'Get new answers').isEnabled()).toBe(true);
}

async function getNew(page: Page) {
  await button(page, 'Get new answers').click();
  await page.getByRole('status').filter({ hasText: /of \d+ answers/ }).waitFor({ state: 'detached' });
  await expect.poll(() => button(page, 'Get new answers').isEnabled()).toBe(true);
}

/** The numbers of "4 of 24". */
async function shares(page: Page) {
  const lines = await page.getByTestId('share').locator('strong').allTextContents();
  return lines.map((line) => Number(line.split(' of ')[0]) / Number(line.split(' of ')[1]));
}

test('from the first visit to a better model of one’s own, and back', async () => {
  const visit = await server.visit(browser);
  const { page } = visit;
  const trains: Sent[] = [];
  page.on('request', (request) => {
    if (request.url().endsWith('/v1/train')) trains.push(request.postDataJSON() as Sent);
  });
  await open(page);
  await button(page, 'Use six examples').click();
  // Several prompts at once make it all but certain that some answers fit and some do not.
  await page.getByLabel('Answers per prompt').selectOption('8');
  await getAnswers(page);
  expect(await page.locator('[data-answer]').count()).toBeGreaterThan(12);
  await visit.expectAccessible();

  await rateBar(page).getByRole('button', { name: 'Pirate' }).click();
  await page.getByRole('status').filter({ hasText: /rated · ready/ }).waitFor();
  await button(page, 'Train').click();
  expect(await page.getByLabel('Name of the copy').inputValue()).toBe('My Tiger-Nano');
  await button(page, 'Make it mine and train').click();
  await page.getByRole('heading', { name: 'Revision 0 → 1' }).waitFor();

  // Of every answer that fits, its probability went up; of most others down.
  const moves = await page.locator('[data-answer]:has([data-before])').evaluateAll((cards) =>
    cards.map((card) => {
      const slope = card.querySelector<HTMLElement>('[data-before]');
      return { good: card.classList.contains('up'), moved: Number(slope?.dataset.after) - Number(slope?.dataset.before) };
    }),
  );
  const good = moves.filter((move) => move.good);
  expect(good.length).toBeGreaterThan(0);
  expect(good.reduce((sum, move) => sum + move.moved, 0) / good.length).toBeGreaterThan(0);

  await page.getByRole('heading', { name: 'Same prompts, asked again' }).waitFor();
  const [before, after] = await shares(page);
  expect(before).toBeGreaterThanOrEqual(0);
  expect(after).toBeLessThanOrEqual(1);
  await visit.expectAccessible();
  expect(trains).toHaveLength(1);
  expect(trains[0]?.batch?.every((one) => new Set(one.responses.map((response) => response.reward)).size > 1)).toBe(true);

  await button(page, 'Undo').click();
  await page.getByText('Undone: revision 2 has the weights of revision 0 again.').waitFor();
  const revisions = await server.call<Revision[]>('GET', '/v1/models/my-tiger-nano/revisions');
  expect(revisions[0]).toMatchObject({ revision: 2, rolled_back_to: 0 });
  await visit.close();
});

test('equal ratings are explained before anything is sent, and the request shown is the request sent', async () => {
  await server.call('POST', '/v1/models', { name: 'Shown', description: '', parent_model: 'tiger-nano' });
  const visit = await server.visit(browser);
  const { page } = visit;
  await open(page, '/teach?model=shown');
  await getAnswers(page, 'What colour is grass?');
  for (const up of await page.getByRole('button', { name: /^Answer \d+ is good$/ }).all()) await up.click();
  await page.getByText('All answers have the same rating, so there is nothing to prefer.').waitFor();
  expect(await button(page, 'Train').isDisabled()).toBe(true);

  await page.getByRole('button', { name: 'Answer 1 is bad' }).click();
  await button(page, 'Show the request').click();
  const code = await page.getByRole('dialog').locator('code').last().textContent();
  const shown = JSON.parse(/-d '([\s\S]+)'$/.exec((code ?? '').trim())?.[1]?.replaceAll(`'\\''`, "'") ?? '') as Sent;
  await page.keyboard.press('Escape');

  const sent = page.waitForRequest('**/v1/train');
  await button(page, 'Train').click();
  const request = await sent;
  expect(request.postDataJSON()).toEqual(shown);
  expect(request.headers()['idempotency-key']).toMatch(/^[0-9a-f-]{36}$/);
  expect(shown).toMatchObject({ model: 'shown', if_revision: 0, stream: true });
  expect(shown.responses).toHaveLength(6);
  await page.getByRole('heading', { name: 'Revision 0 → 1' }).waitFor();
  await visit.close();
});

test('a better answer written by hand is trained, and somebody else’s training is noticed', async () => {
  await server.call('POST', '/v1/models', { name: 'Hand', description: '', parent_model: 'tiger-nano' });
  const visit = await server.visit(browser);
  visit.allow(/status of 409/);
  const { page } = visit;
  await open(page, '/teach?model=hand');
  await getAnswers(page, 'What does a cow say?');
  await button(page, 'Write a better answer').click();
  await page.getByLabel('Your answer', { exact: true }).fill('Moo, says the cow.');

  const sent = page.waitForRequest('**/v1/train');
  await button(page, 'Train').click();
  const body = (await sent).postDataJSON() as Sent;
  expect(body.responses?.filter((one) => one.content)).toEqual([{ content: 'Moo, says the cow.', reward: 1 }]);
  expect(body.responses?.filter((one) => one.response_id).map((one) => one.reward)).toEqual([0, 0, 0, 0, 0, 0]);
  await page.getByRole('heading', { name: 'Revision 0 → 1' }).waitFor();
  const slope = page.locator('[data-answer]', { has: page.getByLabel('Your answer', { exact: true }) }).locator('[data-before]');
  expect(Number(await slope.getAttribute('data-after'))).toBeGreaterThan(Number(await slope.getAttribute('data-before')));

  await expect.poll(() => button(page, 'Another round').isEnabled()).toBe(true);
  await server.call('POST', '/v1/models/hand/rollback', { revision: 0 });
  await page.getByRole('button', { name: 'Answer 1 is bad' }).click();
  await button(page, 'Train').click();
  await page.getByText('Somebody else trained this model in the meantime.').waitFor();
  await visit.close();
});

test('rounds by themselves reach what the rule asks for', async () => {
  const visit = await server.visit(browser);
  const { page } = visit;
  await open(page, '/teach?model=tiger-nano');
  await button(page, 'Use six examples').click();
  await getAnswers(page);
  await rateBar(page).getByRole('button', { name: 'Pirate' }).click();
  await button(page, 'Train until better').click();
  await button(page, 'Make it mine and start').click();
  await page.locator('[data-end]').waitFor();
  expect(await page.locator('[data-end]').getAttribute('data-end')).toMatch(/reached|limit/);
  await page.getByTestId('share').waitFor();
  const [before, after] = (await shares(page)) as [number, number];
  expect(after).toBeGreaterThan(Math.max(0.6, before));
  // The state is still there after a visit to another page.
  await page.getByRole('link', { name: 'Usage', exact: true }).click();
  await page.getByRole('link', { name: 'Teach', exact: true }).click();
  await page.getByTestId('share').waitFor();
  await visit.close();
});

test('a rule of length counts, so that rounds by themselves reach it', async () => {
  await server.call('POST', '/v1/models', { name: 'Short', description: '', parent_model: 'tiger-nano' });
  const visit = await server.visit(browser);
  const { page } = visit;
  await open(page, '/teach?model=short');
  await button(page, 'Use six examples').click();
  await getAnswers(page);
  await button(page, 'Own rule').click();
  await page.locator('label', { hasText: 'Are short' }).click();
  await page.getByLabel('Words at most').fill('');
  await page.getByText('Enter a whole number from 1.').waitFor();
  expect(await button(page, 'Rate by this rule').isDisabled()).toBe(true);
  await page.getByLabel('Words at most').fill('1');
  await button(page, 'Rate by this rule').click();
  await page.getByText(/\d+ of 36 fit the rule/).waitFor();
  await visit.expectAccessible();
  await button(page, 'Train until better').click();
  await page.locator('[data-end]').waitFor();
  const [before, after] = (await shares(page)) as [number, number];
  expect(after).toBeGreaterThan(Math.max(0.6, before));
  await visit.close();
});

test('new answers do not drop ratings unasked', async () => {
  const visit = await server.visit(browser);
  const { page } = visit;
  await open(page);
  await getAnswers(page, 'What is 7 plus 5?');
  // What a rule rated, it rates again.
  await rateBar(page).getByRole('button', { name: 'Pirate' }).click();
  await getNew(page);
  await rateBar(page).getByRole('button', { name: 'Pirate' }).click();
  await page.getByRole('button', { name: 'Answer 1 is bad' }).click();
  const dialog = page.getByRole('dialog', { name: 'Leave these ratings?' });
  await button(page, 'Get new answers').click();
  await dialog.getByText(/ratings? ha(s|ve) not been trained yet/).waitFor();
  await visit.expectAccessible();
  await button(page, 'Keep them').click();
  expect(await page.getByRole('button', { name: 'Answer 1 is bad' }).getAttribute('aria-pressed')).toBe('true');
  expect(await page.evaluate(() => document.activeElement?.textContent?.trim())).toBe('Get new answers');
  await button(page, 'Get new answers').click();
  await dialog.getByRole('button', { name: 'Get new answers' }).click();
  await expect.poll(() => page.getByText(/rated · ready|Rate at least one answer/).count()).toBe(1);
  expect(await page.getByRole('button', { name: 'Answer 1 is bad' }).getAttribute('aria-pressed')).toBe('false');
  await visit.close();
});

test('a training whose answer is lost is sent again under its key, and trained once', async () => {
  await server.call('POST', '/v1/models', { name: 'Lost', description: '', parent_model: 'tiger-nano' });
  const visit = await server.visit(browser);
  visit.allow(/ERR_FAILED/);
  const { page } = visit;
  await open(page, '/teach?model=lost');
  await getAnswers(page);
  await page.getByRole('button', { name: 'Answer 1 is good' }).click();
  const keys: (string | undefined)[] = [];
  await page.route('**/v1/train', async (route) => {
    keys.push(route.request().headers()['idempotency-key']);
    if (keys.length > 1) return route.continue();
    await route.fetch();
    await route.abort();
  });
  await button(page, 'Train').click();
  await page.getByText('Trying again is safe: it trains once.').waitFor();
  await button(page, 'Try again').click();
  await page.getByRole('heading', { name: 'Revision 0 → 1' }).waitFor();
  expect(keys).toHaveLength(2);
  expect(keys[0]).toBe(keys[1]);
  const revisions = await server.call<Revision[]>('GET', '/v1/models/lost/revisions');
  expect(revisions.map((one) => one.revision)).toEqual([1, 0]);
  await visit.close();
});

test('answers of two models are rated blind until their names are asked for', async () => {
  await server.call('POST', '/v1/models', { name: 'Blind', description: '', parent_model: 'tiger-nano' });
  const visit = await server.visit(browser);
  const { page } = visit;
  await open(page, '/teach?model=blind');
  await button(page, 'System prompt and a second model').click();
  await page.getByLabel('Also ask').selectOption('tiger-nano');
  await getAnswers(page);
  const names = async () => [...new Set(await page.locator('[data-answer] .who').allTextContents())].sort();
  expect(await names()).toEqual(['Model A', 'Model B']);
  await page.getByRole('switch', { name: 'Hide which model said what' }).click();
  expect(await names()).toEqual(['Blind', 'Tiger-Nano']);
  await page.getByRole('button', { name: 'Answer 1 is good' }).click();
  const sent = page.waitForRequest('**/v1/train');
  await button(page, 'Train').click();
  expect(((await sent).postDataJSON() as Sent).responses?.filter((one) => one.response_id)).toHaveLength(12);
  await page.getByRole('heading', { name: 'Revision 0 → 1' }).waitFor();
  await visit.close();
});

test('sliders, ranks and keys say the same rewards; nothing scrolls sideways at 360 px', async () => {
  const visit = await server.visit(browser, { viewport: { width: 360, height: 740 }, colorScheme: 'dark' });
  const { page } = visit;
  await open(page);
  await getAnswers(page, 'What is 7 plus 5?');
  await page.locator('[data-answer]').first().waitFor();
  await page.keyboard.press('j');
  await page.keyboard.press('u');
  expect(await page.getByRole('button', { name: 'Answer 1 is good' }).getAttribute('aria-pressed')).toBe('true');
  await page.getByRole('radio', { name: 'Slider' }).check({ force: true });
  expect(await page.getByRole('slider', { name: 'Reward of answer 1' }).inputValue()).toBe('1');
  await visit.expectAccessible();

  await page.getByRole('radio', { name: 'Rank' }).check({ force: true });
  const text = () => page.locator('[data-answer] .text').first().textContent();
  const first = await text();
  await page.locator('[data-answer]').first().focus();
  await page.keyboard.press('ArrowDown');
  await expect.poll(text).not.toBe(first);
  expect(await page.evaluate(() => (document.activeElement as HTMLElement).dataset.answer !== undefined)).toBe(true);
  const rewards = (await page.locator('[data-answer] output').allTextContents()).map((one) => Number(one.replace('−', '-')));
  expect([rewards[0], rewards.at(-1)]).toEqual([1, -1]);
  const top = await text();
  await page.locator('[data-answer]').nth(1).dragTo(page.locator('[data-answer]').first());
  await expect.poll(text).not.toBe(top);
  await visit.expectAccessible();
  expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
  await visit.close();
});
