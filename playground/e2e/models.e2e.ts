// Models: made, trained with its page open, looked at, compared, rolled back, changed, downloaded, deleted.
import { readFile } from 'node:fs/promises';
import type { Browser, Locator, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ModelInfo } from '../src/lib/api/types';
import { openBrowser, OWNER, Server } from './harness';
import { trainOnce } from './seed';

/** An open page sees a training within its calm interval of 10 s. */
const SEEN_MS = 15_000;

let server: Server;
let browser: Browser;

beforeAll(async () => {
  // A hub that nobody answers at: downloads must fail nicely, and never reach the network.
  server = await Server.start({ env: { HF_ENDPOINT: 'http://127.0.0.1:9' } });
  browser = await openBrowser();
});

afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

const make = (name: string) => server.call<ModelInfo>('POST', '/v1/models', { name, description: '', parent_model: 'tiger-nano', seed: 3 });
const chart = (page: Page, name: string) => page.getByRole('slider', { name, exact: true });
const said = (slider: Locator) => slider.getAttribute('aria-valuetext');

async function downloaded(page: Page, press: () => Promise<void>): Promise<{ name: string; bytes: Buffer }> {
  const [download] = await Promise.all([page.waitForEvent('download'), press()]);
  return { name: download.suggestedFilename(), bytes: await readFile((await download.path()) ?? '') };
}

test('a copy is made with the form, which shows its id and the problems at their fields', async () => {
  const visit = await server.visit(browser);
  const { page } = visit;
  visit.allow(/status of 409/);
  await page.goto(server.url('/models'));
  await page.getByRole('heading', { name: 'No model of your own yet' }).waitFor();
  await page.getByRole('button', { name: 'Make a copy' }).first().click();
  const dialog = page.getByRole('dialog', { name: 'Make a copy' });
  const name = dialog.getByRole('textbox', { name: 'Name', exact: true });
  expect(await name.inputValue()).toBe('Tiger-Nano copy');
  await name.fill('');
  await dialog.getByRole('button', { name: 'Make the copy' }).click();
  await dialog.getByText('Give it a name.').waitFor();
  expect(await name.getAttribute('aria-invalid')).toBe('true');
  await name.fill('My Pirate (v1)');
  await dialog.getByText('In requests: my-pirate--v1-').waitFor();
  await dialog.getByText('LoRA settings').click();
  await dialog.getByRole('textbox', { name: 'Dropout' }).fill('2');
  await dialog.getByRole('button', { name: 'Make the copy' }).click();
  await dialog.getByText('Give a number from 0 to 0.99.').waitFor();
  await dialog.getByRole('textbox', { name: 'Dropout' }).fill('');
  await dialog.getByRole('combobox', { name: 'Rank' }).selectOption('8');
  await visit.expectAccessible('/models, making a copy');
  await dialog.getByRole('button', { name: 'Make the copy' }).click();
  await page.getByRole('heading', { level: 1, name: 'My Pirate (v1)' }).waitFor();
  const made = await server.call<ModelInfo>('GET', '/v1/models/my-pirate--v1-');
  expect(made).toMatchObject({ name: 'My Pirate (v1)', rank: 8, revision: 0 });

  // The server's own refusal stands at its field.
  await page.goto(server.url('/models'));
  await page.getByRole('button', { name: 'Make a copy' }).first().click();
  await server.call('POST', '/v1/models', { name: 'Taken', description: '', parent_model: 'tiger-nano' });
  await name.fill('Taken');
  await dialog.getByRole('button', { name: 'Make the copy' }).click();
  await dialog.getByRole('alert').getByText('is taken').waitFor();
  await visit.close();
});

test('the curves grow while the page is open, say their values together, and the table and CSV have the same numbers', async () => {
  const model = await make('Curves');
  const visit = await server.visit(browser);
  const { page } = visit;
  await page.goto(server.url(`/models/${model.id}`));
  await page.getByText('No training yet').waitFor();
  const first = await trainOnce(server, model.id);
  await page.getByText('1 training', { exact: true }).waitFor({ timeout: SEEN_MS });
  await page.getByText('One training so far.').waitFor();
  const second = await trainOnce(server, model.id);
  await page.getByText('2 trainings', { exact: true }).waitFor({ timeout: SEEN_MS });
  expect(await chart(page, 'Reward').getAttribute('aria-valuemax')).toBe('2');

  // Arrow keys in one chart move the place in all of them.
  await chart(page, 'Reward').focus();
  await page.keyboard.press('ArrowLeft');
  await page.keyboard.press('ArrowLeft');
  for (const name of ['Reward', 'Loss', 'Distance from the parent', 'Gradient norm', 'Entropy']) {
    expect(await said(chart(page, name))).toMatch(new RegExp(`^${name}, revision 1: [-\\d]`));
    expect(await chart(page, name).getAttribute('aria-valuenow')).toBe('1');
  }
  expect(await said(chart(page, 'Reward'))).toBe(`Reward, revision 1: ${Number(first.reward.mean.toPrecision(3))}`);
  await page.keyboard.press('ArrowRight');
  expect(await said(chart(page, 'Loss'))).toContain('revision 2');

  // And so does the pointer.
  await page.keyboard.press('Escape');
  const box = await chart(page, 'Loss').boundingBox();
  await page.mouse.move(box!.x + 70, box!.y + 80);
  await expect.poll(() => said(chart(page, 'Entropy'))).toContain('revision 1');
  await page.mouse.move(box!.x + box!.width - 16, box!.y + 80);
  await expect.poll(() => said(chart(page, 'Entropy'))).toContain('revision 2');

  // Smoothing draws another line: the picture changes, and back.
  await page.mouse.move(2, 2);
  const canvas = () => page.locator('canvas').nth(1).evaluate((element) => (element as HTMLCanvasElement).toDataURL());
  const rough = await canvas();
  await page.getByRole('slider', { name: 'Smoothing' }).fill('0.9');
  await expect.poll(canvas).not.toBe(rough);
  await page.getByRole('slider', { name: 'Smoothing' }).fill('0');
  await expect.poll(canvas).toBe(rough);

  // So does the log scale, of the gradient alone.
  const gradient = () => page.locator('canvas').nth(3).evaluate((element) => (element as HTMLCanvasElement).toDataURL());
  const linear = await gradient();
  await page.getByRole('switch', { name: 'Log scale' }).check();
  await expect.poll(gradient).not.toBe(linear);
  expect(await canvas()).toBe(rough);
  await visit.expectAccessible('a model with curves');

  const csv = await downloaded(page, () => page.getByRole('button', { name: 'Download CSV' }).click());
  expect(csv.name).toBe('curves-curves.csv');
  const lines = csv.bytes.toString().trim().split('\r\n');
  expect(lines).toHaveLength(4);
  const column = (lines[0] ?? '').split(',').indexOf('grad_norm');
  expect(Number(lines[2]?.split(',')[column])).toBe(first.grad_norm);
  expect(Number(lines[3]?.split(',')[column])).toBe(second.grad_norm);

  await page.getByRole('button', { name: 'Show as table' }).click();
  const table = page.getByRole('table', { name: 'Revisions, newest first' });
  expect(await table.getByRole('rowheader').allInnerTexts()).toEqual(['2', '1', '0']);
  await visit.close();
});

test('rolling back makes a new revision, which history and curves mark', async () => {
  const model = await make('Back');
  await trainOnce(server, model.id);
  await trainOnce(server, model.id);
  const visit = await server.visit(browser);
  const { page } = visit;
  await page.goto(server.url(`/models/${model.id}?view=history`));
  await page.getByRole('button', { name: 'Details of revision 2' }).click();
  await page.getByRole('region', { name: 'Responses' }).waitFor();
  await visit.expectAccessible('a history with details');
  await page.getByRole('button', { name: 'Roll back to revision 1' }).click();
  const dialog = page.getByRole('dialog', { name: 'Roll back to revision 1?' });
  await dialog.getByText('as revision 3').waitFor();
  await dialog.getByRole('button', { name: 'Roll back to 1' }).click();
  await page.getByText('Rolled back to revision 1').waitFor();
  expect((await server.call<ModelInfo>('GET', `/v1/models/${model.id}`)).revision).toBe(3);
  await page.getByRole('tab', { name: 'Curves' }).click();
  await page.getByText('Dashed line: rolled back').waitFor();
  await expect.poll(() => said(chart(page, 'Reward'))).toContain('rolled back to 1');
  await visit.close();
});

test('a revision is compared with another one and with another model, by a rule, blind, as a file', async () => {
  const model = await make('Compared');
  await trainOnce(server, model.id);
  const visit = await server.visit(browser);
  const { page } = visit;
  await page.goto(server.url(`/models/${model.id}?view=compare`));
  await page.getByRole('button', { name: 'Compare', exact: true }).click();
  await page.getByText('Write at least one prompt.').waitFor();
  const prompts = page.getByRole('textbox', { name: 'Prompts' });
  await prompts.fill('What is the capital of France?\nWhat colour is grass?\n');
  await page.getByRole('button', { name: 'What is 7 plus 5?' }).click();
  await page.getByRole('slider', { name: 'Answers each' }).fill('2');
  await page.getByRole('button', { name: 'Compare', exact: true }).click();
  await page.getByRole('heading', { name: 'Answers', exact: true }).waitFor();
  await page.getByText(/\d of 6 pairs are the same/).waitFor();
  expect(await page.getByRole('heading', { level: 3, name: /^What/ }).allInnerTexts()).toEqual(['What is the capital of France?', 'What colour is grass?', 'What is 7 plus 5?']);
  expect(await page.getByText(/^Log-prob -?\d/).count()).toBe(12);
  await page.getByText('KL divergence').waitFor();

  await page.getByRole('radio', { name: 'Regular expression' }).check({ force: true });
  await page.getByRole('textbox', { name: 'An answer passes when it has' }).fill('.');
  await page.getByText('6 ties').waitFor();
  await page.getByText('wins 50 %').waitFor();
  await page.getByRole('textbox', { name: 'An answer passes when it has' }).fill('(');
  await page.getByText('Invalid regular expression').waitFor();
  await page.getByRole('textbox', { name: 'An answer passes when it has' }).fill('');
  await visit.expectAccessible('a comparison');

  await page.getByRole('switch', { name: 'Vote blind' }).check();
  // No side is named before the vote.
  const results = page.getByRole('region', { name: 'Answers' });
  expect(await results.getByText(/Compared, revision/).count()).toBe(0);
  expect(await results.getByText(/^Log-prob/).count()).toBe(0);
  await page.getByRole('radiogroup', { name: 'Your vote on pair 1', exact: true }).getByRole('radio', { name: 'Left is better' }).check({ force: true });
  await page.getByRole('radiogroup', { name: 'Your vote on pair 2', exact: true }).getByRole('radio', { name: 'Same' }).check({ force: true });
  await page.getByText('2 of 6 voted').waitFor();
  await page.getByRole('button', { name: 'Reveal' }).click();
  await page.getByText('1 tie', { exact: true }).waitFor();
  const file = await downloaded(page, () => page.getByRole('button', { name: 'Export JSON' }).click());
  const content = JSON.parse(file.bytes.toString()) as { pairs: unknown[]; votes: { a: number; b: number; tie: number } };
  expect(content.pairs).toHaveLength(6);
  expect(content.votes.a + content.votes.b).toBe(1);
  expect(content.votes.tie).toBe(1);

  await page.getByRole('radio', { name: 'Another model' }).check({ force: true });
  await page.getByRole('button', { name: 'Compare', exact: true }).click();
  await page.getByRole('region', { name: 'Answers' }).getByText('Tiger-Nano', { exact: true }).first().waitFor();
  expect(await page.getByText(/^Log-prob/).count()).toBe(0);
  await visit.close();
});

test('settings are saved one by one', async () => {
  const model = await make('Set');
  const visit = await server.visit(browser);
  const { page } = visit;
  await page.goto(server.url(`/models/${model.id}?view=settings`));
  const description = page.getByRole('textbox', { name: 'Description' });
  await description.fill('Answers briefly');
  await page.keyboard.press('Enter');
  await page.getByText('Saved', { exact: true }).waitFor();
  const temperature = page.getByRole('textbox', { name: 'Temperature' });
  await temperature.fill('7');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('Give a number from 0 to 2.').waitFor();
  await temperature.fill('0.5');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('switch', { name: 'The model that pages begin with' }).check();
  await page.getByText('Set is the model that pages begin with.').waitFor();
  const now = await server.call<ModelInfo>('GET', `/v1/models/${model.id}`);
  expect(now).toMatchObject({ description: 'Answers briefly', temperature: 0.5, default_model: true });
  // An emptied number is the base's again.
  await temperature.fill('');
  await page.getByRole('button', { name: 'Save' }).click();
  await expect.poll(async () => (await server.call<ModelInfo>('GET', `/v1/models/${model.id}`)).temperature).toBe(model.temperature);
  await page.getByRole('switch', { name: 'The model that pages begin with' }).uncheck();
  await page.getByText('Set is no longer the default.').waitFor();
  await visit.expectAccessible('the settings of a model');
  await visit.close();
});

test("the adapter's files are PEFT's", async () => {
  const model = await make('Adapter');
  const visit = await server.visit(browser);
  const { page } = visit;
  await page.goto(server.url(`/models/${model.id}`));
  const get = (name: string) =>
    downloaded(page, async () => {
      await page.getByRole('button', { name: 'More about Adapter' }).click();
      await page.getByRole('menuitem', { name }).click();
    });
  const weights = await get('adapter_model.safetensors');
  expect(weights.name).toBe('adapter_model.safetensors');
  const header = JSON.parse(weights.bytes.subarray(8, 8 + Number(weights.bytes.readBigUInt64LE(0))).toString()) as Record<string, { shape?: number[] }>;
  expect(Object.keys(header).filter((name) => name.endsWith('lora_A.weight'))).toHaveLength(28);
  const config = await get('adapter_config.json');
  expect(JSON.parse(config.bytes.toString())).toMatchObject({ peft_type: 'LORA', r: 16, lora_alpha: 32 });
  await visit.close();
});

test('a model is deleted by typing its name', async () => {
  const model = await make('Gone Soon');
  const visit = await server.visit(browser);
  const { page } = visit;
  await page.goto(server.url('/models'));
  await page.getByRole('button', { name: 'More about Gone Soon' }).click();
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  const dialog = page.getByRole('dialog', { name: 'Delete Gone Soon?' });
  const submit = dialog.getByRole('button', { name: 'Delete the model' });
  expect(await submit.isDisabled()).toBe(true);
  await dialog.getByRole('textbox').fill('Gone Soo');
  expect(await submit.isDisabled()).toBe(true);
  await dialog.getByRole('textbox').fill('Gone Soon');
  await submit.click();
  await page.getByText('Gone Soon is deleted.').waitFor();
  await expect.poll(() => page.getByRole('link', { name: 'Gone Soon' }).count()).toBe(0);
  const list = await server.call<ModelInfo[]>('GET', '/v1/models');
  expect(list.map((one) => one.id)).not.toContain(model.id);
  visit.allow(/status of 404/);
  await page.goto(server.url(`/models/${model.id}`));
  await page.getByRole('heading', { level: 2, name: 'There is no such model' }).waitFor();
  await visit.close();
});

test('a download whose hub does not answer says so, and can be closed', async () => {
  const visit = await server.visit(browser);
  const { page } = visit;
  await page.goto(server.url('/models'));
  await page.getByRole('button', { name: 'Add a model' }).click();
  const dialog = page.getByRole('dialog', { name: 'Add a model' });
  await dialog.getByRole('textbox', { name: 'Repository' }).fill('nobody');
  await dialog.getByRole('button', { name: 'Download' }).click();
  await dialog.getByText('Write it as owner/name.').waitFor();
  await dialog.getByRole('textbox', { name: 'Repository' }).fill('nobody/nothing');
  await dialog.getByRole('button', { name: 'Download' }).click();
  await page.getByText('nobody/nothing was not downloaded').waitFor({ timeout: 60_000 });
  await page.getByRole('button', { name: 'Close' }).first().click();
  await expect.poll(() => page.getByText('nobody/nothing was not downloaded').count()).toBe(0);
  await visit.close();
});

test('somebody else than the owner is told how to get a base model, and is offered no download', async () => {
  const { invitation } = await server.call<{ invitation: string }>('POST', '/api/invitations', {});
  const answer = await fetch(`${server.api}/api/accounts`, {
    method: 'POST',
    headers: { 'x-tiger-csrf': '1', 'content-type': 'application/json' },
    body: JSON.stringify({ invitation, name: 'bob', password: OWNER.password }),
  });
  const [name, value] = ((answer.headers.get('set-cookie') ?? '').split(';')[0] ?? '').split('=') as [string, string];
  const visit = await server.visit(browser, { signedIn: false });
  await visit.context.addCookies([{ name, value, url: server.origin, httpOnly: true, sameSite: 'Strict' }]);
  await visit.page.goto(server.url('/models'));
  await visit.page.getByText('tiger pull Llama-3.1-8b').waitFor();
  expect(await visit.page.getByRole('button', { name: 'Download' }).count()).toBe(0);
  expect(await visit.page.getByRole('button', { name: 'Add a model' }).count()).toBe(0);
  await visit.close();
});
