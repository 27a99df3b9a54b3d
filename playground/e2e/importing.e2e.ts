// An adapter of a trained model, downloaded by its page, imported by the list's, and sampled.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ModelInfo } from '../src/lib/api/types';
import { openBrowser, Server } from './harness';
import { trainOnce } from './seed';

const FILES = ['adapter_config.json', 'adapter_model.safetensors'] as const;
const QUESTION = { messages: [{ role: 'user', content: 'What is the capital of France?' }], seed: 5 };

let server: Server;
let browser: Browser;
const folder = mkdtempSync(join(tmpdir(), 'tiger-e2e-adapter-'));
const [CONFIG, WEIGHTS] = FILES.map((file) => join(folder, file)) as [string, string];

beforeAll(async () => {
  server = await Server.start();
  browser = await openBrowser();
  const made = await server.call<ModelInfo>('POST', '/v1/models', { name: 'Teacher', description: '', parent_model: 'tiger-nano', seed: 3 });
  await trainOnce(server, made.id);
});

afterAll(async () => {
  await browser?.close();
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function opened(page: Page) {
  await page.goto(server.url('/models'));
  await page.getByRole('button', { name: 'Import an adapter' }).first().click();
  const dialog = page.getByRole('dialog', { name: 'Import an adapter' });
  return { dialog, give: (files: string[]) => dialog.locator('input[type=file]').setInputFiles(files), send: () => dialog.getByRole('button', { name: 'Import', exact: true }).click() };
}

/** Drops files as a person does who drags them from a folder. */
async function drop(page: Page, files: Record<string, Buffer>): Promise<void> {
  const given = Object.entries(files).map(([name, content]) => [name, content.toString('base64')] as const);
  await page.evaluate((given) => {
    const data = new DataTransfer();
    for (const [name, content] of given) data.items.add(new File([Uint8Array.from(atob(content), (one) => one.charCodeAt(0))], name));
    for (const type of ['dragenter', 'dragover', 'drop']) {
      document.querySelector('dialog')?.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    }
  }, given);
}

test('what a model’s page gives, the list’s takes, and it answers the same', async () => {
  const visit = await server.visit(browser);
  const { page } = visit;
  await page.goto(server.url('/models/teacher'));
  for (const file of FILES) {
    await page.getByRole('button', { name: 'More about Teacher' }).click();
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('menuitem', { name: `Download ${file}` }).click()]);
    writeFileSync(join(folder, file), await readFile((await download.path()) ?? ''));
  }

  const { dialog, send } = await opened(page);
  await send();
  await dialog.getByRole('alert').getByText('Choose the adapter’s two files.').waitFor();
  expect(await page.evaluate(() => document.activeElement?.textContent?.trim())).toBe('Choose files');
  // One after the other; what the first says of itself is shown.
  await drop(page, { 'adapter_config.json': await readFile(CONFIG) });
  await dialog.getByText('Rank 16 on').waitFor();
  await dialog.getByText('Rank 16 on all linear maps · made for Tiger-Nano').waitFor();
  await dialog.getByText('still missing').waitFor();
  expect(await dialog.getByRole('alert').count()).toBe(0);
  await send();
  await dialog.getByText('adapter_model.safetensors is missing.').waitFor();
  await drop(page, { 'adapter_model.safetensors': await readFile(WEIGHTS) });
  expect(await dialog.getByRole('textbox', { name: 'Name', exact: true }).inputValue()).toBe('Tiger-Nano adapter');
  await dialog.getByRole('textbox', { name: 'Description' }).fill('from a file');
  await visit.expectAccessible('importing');
  await send();
  await page.getByRole('heading', { level: 1, name: 'Tiger-Nano adapter' }).waitFor();
  await page.getByText('Tiger-Nano adapter is made.').waitFor();

  const made = await server.call<ModelInfo>('GET', '/v1/models/tiger-nano-adapter');
  expect(made).toMatchObject({ description: 'from a file', revision: 0, parent_model: 'Tiger-Nano', rank: 16 });
  const [taught, imported, plain] = await Promise.all(
    ['teacher', made.id, 'tiger-nano'].map((model) => server.call<{ message: unknown; logprobs: unknown }>('POST', '/v1/generate_response', { ...QUESTION, model, logprobs: true })),
  );
  expect(imported?.logprobs).toEqual(taught?.logprobs);
  expect(imported?.logprobs).not.toEqual(plain?.logprobs);
  await visit.close();
});

test('refusals stand at their fields, before and after sending', async () => {
  const visit = await server.visit(browser);
  const { page } = visit;
  visit.allow(/status of 4(09|22)/);
  const { dialog, give, send } = await opened(page);
  const others = { old: join(folder, 'adapter_model.bin'), config: join(folder, 'dora.json'), cut: join(folder, 'cut.safetensors'), odd: join(folder, 'odd.json') };
  writeFileSync(others.old, 'x');
  writeFileSync(others.config, JSON.stringify({ ...(JSON.parse((await readFile(CONFIG)).toString()) as object), use_dora: true }));
  writeFileSync(others.cut, (await readFile(WEIGHTS)).subarray(0, -4));
  writeFileSync(others.odd, '{');
  await give([others.old]);
  await dialog.getByText('safe_serialization').waitFor();
  await give([others.odd, WEIGHTS]);
  await dialog.getByText('It is not JSON.').waitFor();
  await give([others.config]);
  await send();
  await dialog.getByText('use_dora: true is not supported').waitFor();
  await give([CONFIG, others.cut]);
  await send();
  await dialog.getByText('the file may be cut').waitFor();
  await visit.expectAccessible('a refused adapter');
  await dialog.getByRole('button', { name: 'Take cut.safetensors away' }).click();
  await dialog.getByText('still missing').waitFor();
  expect(await page.evaluate(() => document.activeElement?.textContent?.trim())).toBe('Choose other files');
  await give([WEIGHTS]);
  const name = dialog.getByRole('textbox', { name: 'Name', exact: true });
  await name.fill('Teacher');
  await send();
  await dialog.getByText('You have a model of this name.').waitFor();
  // Taken meanwhile, unseen by the page.
  await server.call('POST', '/v1/models', { name: 'Meanwhile', description: '', parent_model: 'tiger-nano' });
  await name.fill('Meanwhile');
  await send();
  await dialog.getByRole('alert').getByText('is taken').waitFor();
  await name.fill('Whole at last');
  await send();
  await page.getByRole('heading', { level: 1, name: 'Whole at last' }).waitFor();
  await visit.close();
});

test('the progress of an upload is shown, and cancelling ends it', async () => {
  const visit = await server.visit(browser);
  const { page } = visit;
  // A slow line: 400 kB/s.
  const line = await visit.context.newCDPSession(page);
  const { dialog, give, send } = await opened(page);
  await give([CONFIG, WEIGHTS]);
  await line.send('Network.enable');
  await line.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: 400_000 });
  await dialog.getByRole('textbox', { name: 'Name', exact: true }).fill('Never');
  await send();
  const bar = dialog.getByRole('progressbar');
  await bar.waitFor();
  expect(await bar.getAttribute('aria-label')).toMatch(/ of 1\.\d MB$|Checking/);
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  await line.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await page.waitForTimeout(500);
  const names = (await server.call<ModelInfo[]>('GET', '/v1/models')).map((model) => model.name);
  expect(names).not.toContain('Never');
  await visit.close();
});

test('a phone has room for it, in both themes', async () => {
  for (const colorScheme of ['light', 'dark'] as const) {
    const visit = await server.visit(browser, { viewport: { width: 360, height: 740 }, colorScheme });
    const { page } = visit;
    const { dialog, give, send } = await opened(page);
    await give([CONFIG]);
    await send();
    await dialog.getByText('adapter_model.safetensors is missing.').waitFor();
    expect(await page.evaluate(() => [document.documentElement.scrollWidth, document.querySelector('dialog')?.scrollWidth])).toEqual([360, expect.any(Number) as number]);
    expect(await dialog.evaluate((element) => element.scrollWidth <= element.clientWidth)).toBe(true);
    await visit.expectAccessible(`importing on a phone, ${colorScheme}`);
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    expect(await page.evaluate(() => document.activeElement?.textContent?.trim())).toBe('Import an adapter');
    await visit.close();
  }
});
