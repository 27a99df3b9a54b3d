// From the link of the first run to a trained model and a key without a mouse: the focus is never lost and always seen.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openBrowser, OWNER, Server, type Visit } from './harness';

let server: Server;
let browser: Browser;
let visit: Visit;
let page: Page;

beforeAll(async () => {
  server = await Server.start();
  browser = await openBrowser();
  visit = await server.visit(browser, { signedIn: false, reducedMotion: 'reduce' });
  page = visit.page;
});

afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

interface Focus {
  name: string;
  tag: string;
  /** Width of the outline of what has the focus, or of the frame that shows it in its place, px. */
  outline: number;
  inDialog: boolean;
}

const focus = () =>
  page.evaluate((): Focus => {
    const one = document.activeElement as HTMLElement;
    const labels = (one as HTMLInputElement).labels;
    const widths = [one, one.parentElement].map((part) => {
      const style = part ? getComputedStyle(part) : undefined;
      return style && style.outlineStyle !== 'none' ? Number.parseFloat(style.outlineWidth) : 0;
    });
    return {
      name: (one.getAttribute('aria-label') ?? labels?.[0]?.textContent ?? one.textContent ?? '').replace(/\s+/g, ' ').trim(),
      tag: one.localName,
      outline: one.matches(':focus-visible') ? Math.max(...widths) : 0,
      inDialog: !!one.closest('dialog[open]'),
    };
  });

/** Presses Tab until something of that name has the focus; every stop on the way must be seen. */
async function tabTo(name: string, key: 'Tab' | 'Shift+Tab' = 'Tab'): Promise<void> {
  for (let presses = 0; presses < 500; presses++) {
    await page.keyboard.press(key);
    const now = await focus();
    // Between the last stop and the first is the browser itself.
    if (now.tag === 'body') continue;
    expect(now.outline, `${now.tag} “${now.name.slice(0, 60)}”`).toBeGreaterThan(0);
    if (now.name === name) return;
  }
  throw new Error(`no stop is called ${name}`);
}

const soon = <T>(look: () => T) => expect.poll(look, { timeout: 20_000 });
const focused = (what: Partial<Focus>) => soon(focus).toMatchObject(what);
const notLost = async () => expect((await focus()).tag).not.toBe('body');

/** The focus goes round inside the dialog. */
async function staysInside(): Promise<void> {
  for (let presses = 0; presses < 8; presses++) {
    await page.keyboard.press(presses < 6 ? 'Tab' : 'Shift+Tab');
    const now = await focus();
    expect(now.inDialog || now.tag === 'body', `${now.tag} ${now.name}`).toBe(true);
  }
}

test('the owner, the first chat and the sheet of keys', async () => {
  await page.goto(`${server.url('/welcome')}#token=${server.setupToken}`);
  await focused({ tag: 'input', name: 'Name' });
  await page.keyboard.type(OWNER.name);
  await tabTo('Password');
  await page.keyboard.type(OWNER.password);
  await page.keyboard.press('Enter');
  await page.waitForURL('**/chat');
  await focused({ tag: 'textarea', name: 'Message' });
  expect((await focus()).outline).toBeGreaterThan(0);
  await page.getByText('Models make mistakes').waitFor();
  await page.keyboard.type('What is the capital of France?');
  await page.keyboard.press('Control+Enter');
  await page.locator('article[aria-busy=false] .markdown').waitFor();
  await focused({ tag: 'textarea', name: 'Message' });

  await page.keyboard.press('Shift+Tab');
  const before = await focus();
  expect(before.tag).not.toBe('body');
  await page.keyboard.press('?');
  await page.getByRole('dialog', { name: 'Keyboard' }).waitFor();
  await focused({ inDialog: true });
  await staysInside();
  await page.keyboard.press('Escape');
  await soon(() => page.getByRole('dialog').count()).toBe(0);
  await focused({ tag: before.tag, name: before.name });
});

test('a model is taught, and the training taken back', async () => {
  await tabTo('Teach');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Teach', level: 1 }).waitFor();
  await notLost();
  await tabTo('Use six examples');
  await page.keyboard.press('Enter');
  await soon(() => page.locator('.prompts textarea').count()).toBe(6);
  await notLost();
  await tabTo('Get answers');
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Get new answers' }).waitFor();
  await page.getByRole('status').filter({ hasText: 'Rate at least one answer' }).waitFor();
  await notLost();
  await tabTo('Pirate');
  await page.keyboard.press('Enter');
  await page.getByRole('status').filter({ hasText: /rated · ready/ }).waitFor();
  await notLost();
  await tabTo('Train');
  await page.keyboard.press('Enter');
  await page.getByLabel('Name of the copy').waitFor();
  await notLost();
  await tabTo('Make it mine and train');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Revision 0 → 1' }).waitFor();
  await page.getByRole('heading', { name: 'Same prompts, asked again' }).waitFor();
  await notLost();
  await tabTo('Undo');
  await page.keyboard.press('Enter');
  await page.getByText('Undone: revision 2 has the weights of revision 0 again.').waitFor();
  await notLost();
});

test('the dialog of a new key takes the focus, keeps it and gives it back', async () => {
  await tabTo('ApiKeys');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'ApiKeys', level: 1 }).waitFor();
  await tabTo('Create a key');
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await focused({ tag: 'input', inDialog: true });
  await staysInside();
  await page.keyboard.press('Escape');
  await soon(() => page.getByRole('dialog').count()).toBe(0);
  await focused({ tag: 'button', name: 'Create a key' });
  await visit.close();
});
