// Chat from the first message to deleting: streams, branches, comparison, storage, failures, hostile answers.
import { readFileSync } from 'node:fs';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { CORPUS } from '../src/lib/markdown/corpus';
import { fakeAnswers } from './chatfake';
import { openBrowser, Server, type Visit } from './harness';
import { seedModel } from './seed';

let server: Server;
let browser: Browser;
let visit: Visit;
let page: Page;

beforeAll(async () => {
  server = await Server.start({ babble: true });
  browser = await openBrowser();
  await seedModel(server, 1);
});

afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

beforeEach(async () => {
  visit = await server.visit(browser);
  page = visit.page;
  // What is not there soon is not there.
  page.setDefaultTimeout(10_000);
});

async function open(path = '/chat?model=tiger-nano'): Promise<void> {
  await page.goto(server.url(path));
  await page.getByRole('textbox', { name: 'Message', exact: true }).waitFor();
  await page.getByText('Models make mistakes').waitFor();
}

async function say(text: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Message', exact: true }).fill(text);
  await page.keyboard.press('Enter');
}

/** Polled for as long as a busy machine may need. */
const soon = <T>(look: () => T, options: { timeout?: number; interval?: number } = {}) => expect.poll(look, { timeout: 10_000, ...options });
const answers = () => page.locator('article');
/** Until nothing is being written. */
async function answered(): Promise<void> {
  await page.locator('article[aria-busy=false]').first().waitFor();
  await soon(() => page.locator('article[aria-busy=true]').count()).toBe(0);
}

/** Until the server has it. */
async function saved(): Promise<string> {
  await page.waitForURL(/\/chat\/chat_/);
  const id = page.url().split('/').at(-1)!;
  const shown = await page.locator('article, .question').count();
  await soon(async () => (await server.call<{ nodes: { interrupted?: boolean }[] }>('GET', `/api/chats/${id}`)).nodes.filter((node) => !node.interrupted).length).toBeGreaterThanOrEqual(shown);
  return id;
}

test('a suggestion is answered in several paints, kept, and there after a reload', async () => {
  await open();
  // Every paint of the answer counts, however short it is.
  await page.evaluate(() => {
    const seen = new Set<string>();
    (window as unknown as { paints: Set<string> }).paints = seen;
    const look = () => {
      const text = document.querySelector('article .markdown')?.textContent;
      if (text) seen.add(text);
      requestAnimationFrame(look);
    };
    look();
  });
  await page.getByRole('button', { name: 'Settings' }).click();
  await page.getByLabel('System prompt').fill('Answer at length.');
  await page.getByRole('textbox', { name: 'Temperature' }).fill('0');
  await page.getByRole('complementary', { name: 'Settings of this chat' }).getByRole('button', { name: 'Close' }).click();
  await page.getByRole('button', { name: 'What is the capital of France?' }).click();
  await answered();
  await soon(() => answers().textContent()).toContain('Paris');
  expect(await page.evaluate(() => (window as unknown as { paints: Set<string> }).paints.size)).toBeGreaterThanOrEqual(3);
  await page.getByText(/tokens\/s/).waitFor();
  await saved();
  await visit.expectAccessible();
  await page.reload();
  await soon(() => answers().textContent()).toContain('Paris');
  await page.getByRole('complementary', { name: 'Conversations' }).getByRole('link', { name: 'What is the capital of France?' }).waitFor();
  expect(await page.title()).toContain('What is the capital of France?');
  await visit.close();
});

test('regenerate and edit make branches, and stepping finds them as they were', async () => {
  await open();
  await say('What colour is grass?');
  await answered();
  await page.getByRole('button', { name: 'Answer again' }).click();
  await page.getByText('2/2').waitFor();
  await answered();
  // The button is gone and back; the focus is not lost meanwhile.
  expect(await page.evaluate(() => document.activeElement?.localName)).toBe('textarea');
  await say('And the sky?');
  await soon(() => answers().count()).toBe(2);
  await answered();
  await page.getByRole('button', { name: 'Previous version' }).click();
  await page.getByText('1/2').waitFor();
  expect(await answers().count()).toBe(1);
  await page.getByRole('button', { name: 'Next version' }).click();
  await soon(() => answers().count()).toBe(2);
  // ↑ in the empty field edits the last message.
  await page.getByRole('textbox', { name: 'Message', exact: true }).focus();
  await page.keyboard.press('ArrowUp');
  await page.getByRole('textbox', { name: 'Edit message' }).fill('And snow?');
  await page.keyboard.press('Enter');
  await page.getByText('And snow?').waitFor();
  await soon(() => page.getByText('2/2').count()).toBe(2);
  await answered();
  await saved();
  // The keys step the last message that has versions.
  await page.getByRole('heading', { level: 1 }).evaluate(() => (document.activeElement as HTMLElement).blur());
  await page.keyboard.press('[');
  await page.getByText('And the sky?').waitFor();
  await page.getByRole('button', { name: 'Delete this branch' }).nth(2).click({ force: true });
  await page.getByRole('dialog').getByText('2 messages').waitFor();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
  await page.getByText('And snow?').waitFor();
  expect(await page.getByText('And the sky?').count()).toBe(0);
  await visit.close();
});

test('base and mine are compared, and one of them goes on', async () => {
  await open('/chat?model=pirate');
  await page.getByRole('button', { name: 'Compare models' }).click();
  await page.getByRole('button', { name: 'Model 2: Tiger-Nano' }).waitFor();
  await say('What does a cow say?');
  await soon(() => page.locator('.column article[aria-busy=false] .markdown').count()).toBe(2);
  await page.getByText('Keep one of the answers above to go on').waitFor();
  await visit.expectAccessible();
  await saved();
  await page.reload();
  await soon(() => page.locator('.column').count()).toBe(2);
  await page.locator('.column').nth(1).getByRole('button', { name: 'Continue with this one' }).click();
  await page.getByText('2/2').waitFor();
  await page.getByRole('button', { name: 'Model: Tiger-Nano' }).waitFor();
  await say('And a dog?');
  await soon(() => answers().count()).toBe(2);
  await answered();
  await visit.close();
});

test('Stop keeps what came and frees the server at once', async () => {
  await open('/chat?model=babble');
  await say('Talk on');
  await page.locator('article[aria-busy=true] .markdown').waitFor();
  await soon(() => server.metric('tiger_running_sequences')).toBe(1);
  await page.keyboard.press('Escape');
  await page.getByText('You stopped this answer.').waitFor();
  // Left alone it would run for minutes.
  await soon(() => server.metric('tiger_running_sequences'), { timeout: 500, interval: 20 }).toBe(0);
  const shown = await page.locator('article .markdown').textContent();
  const id = await saved();
  await soon(async () => (await server.call<{ nodes: { content: string; stop_reason?: string }[] }>('GET', `/api/chats/${id}`)).nodes[1]?.stop_reason).toBeUndefined();
  await page.reload();
  await soon(() => page.locator('article .markdown').textContent()).toBe(shown);
  await page.getByText('You stopped this answer.').waitFor();
  await visit.close();
});

test('found, renamed, exported in both forms, deleted', async () => {
  await open();
  await say('What is 7 plus 5?');
  await answered();
  await saved();
  const side = page.getByRole('complementary', { name: 'Conversations' });
  const act = async (title: string, action: string) => {
    await side.getByRole('button', { name: `Actions for “${title}”` }).first().click();
    await page.getByRole('menuitem', { name: action }).click();
  };
  await act('What is 7 plus 5?', 'Rename');
  await page.getByRole('dialog').getByLabel('Name').fill('Sums');
  await page.keyboard.press('Enter');
  await side.getByRole('link', { name: 'Sums' }).waitFor();
  for (const [action, file, has] of [
    ['Export as Markdown', 'Sums.md', '## You\n\nWhat is 7 plus 5?'],
    ['Export as JSON', 'Sums.json', '"title": "Sums"'],
  ] as const) {
    const download = page.waitForEvent('download');
    await act('Sums', action);
    const got = await download;
    expect(got.suggestedFilename()).toBe(file);
    expect(readFileSync((await got.path())!, 'utf8')).toContain(has);
  }
  await page.keyboard.press('Control+k');
  await page.keyboard.type('7 PLUS');
  await soon(() => side.getByRole('link').count()).toBe(1);
  await side.locator('.excerpt mark', { hasText: '7 plus' }).first().waitFor();
  await page.keyboard.press('Control+a');
  await page.keyboard.type('nobody said this');
  await side.getByText('Nothing has “nobody said this” in it.').waitFor();
  await page.keyboard.press('Control+a');
  await page.keyboard.press('Delete');
  await side.getByRole('link', { name: 'Sums' }).waitFor();
  await act('Sums', 'Delete');
  await page.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
  await soon(() => side.getByRole('link', { name: 'Sums' }).count()).toBe(0);
  await page.waitForURL('**/chat');
  await visit.close();
});

test('settings are sent, refused at the field, and shown as code', async () => {
  await open();
  await page.getByRole('button', { name: 'Settings' }).click();
  await page.getByRole('textbox', { name: 'Temperature' }).fill('2.5');
  await page.getByText('Enter a number from 0 to 2.').waitFor();
  await page.getByRole('textbox', { name: 'Temperature' }).fill('0');
  await page.getByRole('textbox', { name: 'Max tokens' }).fill('3');
  await page.getByLabel('System prompt').fill('Answer at length.');
  const sent = page.waitForRequest('**/v1/generate_response');
  await say('What is the capital of France?');
  expect((await sent).postDataJSON()).toMatchObject({ temperature: 0, max_tokens: 3, messages: [{ role: 'system' }, { role: 'user' }], stream: true });
  await page.getByText('The answer reached its token limit.').waitFor();
  const before = await page.locator('article .markdown').textContent();
  await page.getByRole('button', { name: 'Continue', exact: true }).click();
  await soon(async () => (await page.locator('article .markdown').textContent())!.length).toBeGreaterThan(before!.length);
  expect(await page.locator('article .markdown').textContent()).toContain(before!.trim());
  await page.getByRole('button', { name: 'View code' }).click();
  const code = await page.getByRole('dialog').locator('pre').textContent();
  expect(code).toContain('"max_tokens": 3');
  expect(code).toContain('$TIGER_API_KEY');
  await visit.expectAccessible();
  await visit.close();
});

test('changed in another window: nothing is overwritten, mine can be kept', async () => {
  visit.allow(/status of 409/);
  await open();
  await say('What is the capital of Japan?');
  await answered();
  const id = await saved();
  await page.waitForTimeout(800);
  const stored = await server.call<Record<string, unknown>>('GET', `/api/chats/${id}`);
  const { created: _, updated: __, id: ___, ...document } = stored;
  await server.call('PUT', `/api/chats/${id}`, { ...document, title: 'Theirs' });
  await say('And of France?');
  await page.getByText('changed in another tab or window').waitFor();
  await page.getByRole('button', { name: 'Keep mine as a copy' }).click();
  await soon(() => page.url()).not.toContain(id);
  expect((await server.call<{ title: string }>('GET', `/api/chats/${id}`)).title).toBe('Theirs');
  await visit.close();
});

test('a server killed in the middle is explained, and after a restart Try again works', async () => {
  visit.allow(/Failed to load resource/, /status of 50/);
  await open('/chat?model=babble');
  await say('What does a dog say?');
  await page.locator('article[aria-busy=true] .markdown').waitFor();
  await page.waitForURL(/\/chat\/chat_/);
  await server.kill();
  await page.getByText(/The server was stopped or the connection broke after \d+ word/).waitFor();
  await page.getByText('The answer broke off').waitFor();
  await page.locator('article .markdown').waitFor();
  await page.getByText('Not saved yet; trying again.').waitFor();
  await server.begin();
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.locator('article[aria-busy=true] .markdown').waitFor();
  await page.keyboard.press('Escape');
  await page.getByText('You stopped this answer.').waitFor();
  await page.getByText('2/2').waitFor();
  await page.getByText('Not saved yet').waitFor({ state: 'detached' });
  await saved();
  await visit.close();
});

test('a reload while an answer is written shows what came and offers to try again', async () => {
  await open();
  await page.evaluate(fakeAnswers, { chunks: Array.from({ length: 4000 }, (_, at) => `word${at} `), every: 5, chunk: 1 });
  await say('Talk on');
  await page.getByText('word20').waitFor();
  await page.waitForURL(/\/chat\/chat_/);
  await page.reload();
  await page.getByText(/The page was closed or reloaded after \d+ word/).waitFor();
  await page.getByRole('button', { name: 'Try again' }).click();
  await answered();
  await visit.close();
});

test('e2e/security: hostile answers run nothing and load nothing', async () => {
  const requested: string[] = [];
  page.on('request', (request) => requested.push(`${request.resourceType()} ${request.url()}`));
  await open();
  requested.length = 0;
  await page.evaluate(fakeAnswers, { chunks: CORPUS.flatMap((text) => [...`${text}\n\n`.match(/[\s\S]{1,9}/g)!]), every: 2, chunk: 3 });
  await say('Attack me');
  await page.locator('article[aria-busy=true]').waitFor();
  await answered();
  expect(await page.evaluate(() => (window as unknown as { hacked?: number }).hacked)).toBeUndefined();
  expect(await page.locator('article').locator('script, img, iframe, svg:not(button svg), object, embed, form, input, style, video').count()).toBe(0);
  expect(requested.filter((one) => !/^(fetch|xhr) |favicon/.test(one))).toEqual([]);
  await visit.expectAccessible();
  await visit.close();
});

test('thoughts are folded, and errors have their request id', async () => {
  visit.allow(/status of 429/);
  await open();
  await page.evaluate(fakeAnswers, { chunks: ['Paris it is.'], reasoning: ['Let me ', 'think about ', 'France.'], every: 30, chunk: 1 });
  await say('What is the capital of France?');
  await page.getByRole('button', { name: /^Thought for/ }).waitFor();
  expect(await page.getByText('think about').count()).toBe(0);
  await page.getByRole('button', { name: /^Thought for/ }).click();
  await page.getByText('Let me think about France.').waitFor();
  await page.evaluate(fakeAnswers, { error: { status: 429, retry: 2, message: 'too many requests; try again in 2 s' } });
  await say('And Spain?');
  await page.getByText('too many requests').waitFor();
  await page.getByText('req_fake').waitFor();
  await page.getByRole('button', { name: /Try again in \d s/ }).waitFor();
  await visit.expectAccessible();
  await page.evaluate(fakeAnswers, { chunks: ['Madrid.'], every: 1, chunk: 1 });
  await page.getByRole('button', { name: 'Try again', exact: true }).click({ timeout: 5000 });
  await page.getByRole('log').getByText('Madrid.').waitFor();
  await visit.close();
});

test('360 px wide and dark: nothing sticks out, the list is a drawer', async () => {
  await visit.close();
  visit = await server.visit(browser, { viewport: { width: 360, height: 740 }, colorScheme: 'dark', reducedMotion: 'reduce' });
  page = visit.page;
  await open();
  await page.evaluate(fakeAnswers, { chunks: [`${'x'.repeat(300)}\n\n| ${'column | '.repeat(12)}\n|${'---|'.repeat(12)}\n| ${'value | '.repeat(12)}\n\n\`\`\`\n${'code '.repeat(60)}\n\`\`\`\n`], every: 1, chunk: 1 });
  await say('Wide things');
  await answered();
  expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
  const frame = page.locator('.frame').last();
  expect(await frame.evaluate((one) => one.scrollWidth - one.clientWidth)).toBeLessThanOrEqual(0);
  await visit.expectAccessible();
  await page.getByRole('button', { name: 'Model: Tiger-Nano' }).click();
  await page.getByRole('option').first().waitFor();
  expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
  expect(await page.locator('.panel').evaluate((panel) => panel.getBoundingClientRect().right <= innerWidth)).toBe(true);
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Conversations' }).click();
  await page.getByRole('dialog', { name: 'Conversations' }).getByRole('link', { name: 'Wide things' }).waitFor();
  await visit.expectAccessible();
  await visit.close();
});

test('all conversations are deleted only after typing so', async () => {
  await open();
  const side = page.getByRole('complementary', { name: 'Conversations' });
  await side.getByRole('link').first().waitFor();
  await side.getByRole('button', { name: 'Actions for all conversations' }).click();
  await page.getByRole('menuitem', { name: 'Delete all conversations' }).click();
  const sure = page.getByRole('dialog').getByRole('button', { name: 'Delete all conversations' });
  expect(await sure.isDisabled()).toBe(true);
  await page.getByRole('dialog').getByLabel('Type “delete all” to confirm').fill('delete all');
  await sure.click();
  await side.getByText('Your conversations will be listed here.').waitFor();
  expect((await server.call<{ chats: unknown[] }>('GET', '/api/chats')).chats).toEqual([]);
  await visit.close();
});
