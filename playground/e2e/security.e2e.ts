// e2e/security: what a hostile page, link or script gets out of the Playground: nothing. (What model output may do is the chat's journey.)
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openBrowser, OWNER, Server } from './harness';

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

// In development the page comes from Vite, without the program's headers.
describe.skipIf(!!process.env.E2E_DEV)('e2e/security: headers', () => {
  test('e2e/security: every page has a content policy without exceptions', async () => {
    for (const path of ['/', '/chat', '/signin', '/models/some-model']) {
      const response = await fetch(server.url(path));
      const policy = response.headers.get('content-security-policy') ?? '';
      expect(policy, path).toContain("default-src 'self'");
      expect(policy, path).not.toMatch(/unsafe-inline|unsafe-eval|\*/);
      expect(policy, path).toMatch(/frame-ancestors 'none'/);
      expect(response.headers.get('x-content-type-options'), path).toBe('nosniff');
      expect(response.headers.get('referrer-policy') ?? '', path).toMatch(/no-referrer|same-origin/);
    }
  });

  test('e2e/security: an injected script does not run', async () => {
    const visit = await server.visit(browser, { reducedMotion: 'reduce' });
    visit.allow(/Content Security Policy/);
    await visit.page.goto(server.url('/keys'));
    await visit.page.getByRole('heading', { level: 1 }).waitFor();
    const ran = await visit.page.evaluate(async () => {
      const script = document.createElement('script');
      script.textContent = 'window.injected = "script"';
      document.head.append(script);
      const holder = document.createElement('div');
      holder.innerHTML = '<img src="data:image/png;base64,AAAA" onerror="window.injected = \'handler\'"><a href="javascript:window.injected=\'link\'">x</a>';
      document.body.append(holder);
      holder.querySelector('a')?.click();
      await new Promise((resolve) => setTimeout(resolve, 300));
      return (window as unknown as { injected?: string }).injected;
    });
    expect(ran).toBeUndefined();
    await visit.close();
  });

  test('e2e/security: clickjacking is refused', async () => {
    const evil = createServer((request, answer) => {
      answer.setHeader('content-type', 'text/html');
      if (request.url === '/harmless') answer.end('<div id="app"></div>');
      else answer.end(`<iframe src="/harmless"></iframe><iframe src="${server.url('/keys')}" width="800" height="600"></iframe>`);
    });
    await new Promise<void>((resolve) => evil.listen(0, '127.0.0.1', resolve));
    const visit = await server.visit(browser, { reducedMotion: 'reduce' });
    // The browser says on the console that it refused; the visit left for this one other origin on purpose.
    visit.allow(/frame-ancestors|X-Frame-Options|refused to connect|favicon/i, /left the origin: http:\/\/127\.0\.0\.1/);
    await visit.page.goto(`http://127.0.0.1:${(evil.address() as AddressInfo).port}/`);
    await visit.page.waitForTimeout(800);
    const frames = await Promise.all(
      visit.page.frames().map(async (frame) => [new URL(frame.url()).pathname, await frame.locator('#app').count()] as const),
    );
    // A frame that may be shown is; the Playground is not, and in its place stands the browser's own page of refusal.
    expect(frames).toContainEqual(['/harmless', 1]);
    expect(frames.filter(([, apps]) => apps > 0)).toHaveLength(1);
    expect(visit.page.frames().map((frame) => frame.url())).toContain('chrome-error://chromewebdata/');
    await visit.close();
    await new Promise((resolve) => evil.close(resolve));
  });
});

test('e2e/security: cookies are not readable by script', async () => {
  const visit = await server.visit(browser, { signedIn: false, reducedMotion: 'reduce' });
  await server.call('GET', '/api/session');
  await visit.page.goto(server.url('/signin'));
  await visit.page.getByLabel('Name', { exact: true }).fill(OWNER.name);
  await visit.page.getByLabel('Password', { exact: true }).fill(OWNER.password);
  await visit.page.getByRole('button', { name: 'Sign in' }).click();
  await visit.page.waitForURL('**/chat');
  expect(await visit.page.evaluate(() => document.cookie)).toBe('');
  const [cookie, ...more] = await visit.context.cookies();
  expect(more).toEqual([]);
  expect(cookie).toMatchObject({ httpOnly: true, sameSite: 'Strict', path: '/' });
  // The password is nowhere.
  const kept = await visit.page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, history.state, location.href]));
  expect(kept).not.toContain(OWNER.password);
  // Without the page's own header, which no form of another site can send, nothing is changed.
  const status = await visit.page.evaluate(async () => (await fetch('/api/session', { method: 'DELETE' })).status);
  expect(status).toBe(403);
  visit.allow(/status of 403/);
  await visit.close();
});

test('e2e/security: next leads to this server only', async () => {
  await server.call('GET', '/api/session');
  for (const next of ['https://evil.example/', '//evil.example/', '/\\evil.example/', '/\t/evil.example/', 'javascript:alert(1)', '/.//evil.example/']) {
    const visit = await server.visit(browser, { signedIn: false, reducedMotion: 'reduce' });
    await visit.page.goto(server.url(`/signin?next=${encodeURIComponent(next)}`));
    await visit.page.getByLabel('Name', { exact: true }).fill(OWNER.name);
    await visit.page.getByLabel('Password', { exact: true }).fill(OWNER.password);
    await visit.page.getByRole('button', { name: 'Sign in' }).click();
    await visit.page.waitForURL('**/chat');
    expect(visit.page.url(), next).toBe(server.url('/chat'));
    // A request to another origin would fail this.
    await visit.close();
  }
});

test('e2e/security: keys are never in storage or the address', async () => {
  const visit = await server.visit(browser, { reducedMotion: 'reduce' });
  const addresses: string[] = [];
  visit.context.on('request', (request) => addresses.push(request.url(), JSON.stringify(request.headers())));
  await visit.page.goto(server.url('/keys'));
  await visit.page.getByRole('button', { name: 'Create a key', exact: true }).click();
  await visit.page.getByLabel('Name').fill('watched');
  await visit.page.keyboard.press('Enter');
  const dialog = visit.page.getByRole('dialog', { name: 'Save your key now' });
  const key = (await dialog.locator('.key code').textContent()) ?? '';
  expect(key).toMatch(/^tiger_[\w-]{43}$/);
  const kept = () => visit.page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, history.state, location.href]));
  // Also while it is shown.
  expect(await kept()).not.toContain(key);
  await visit.page.getByRole('button', { name: 'I saved it' }).click();
  for (const page of ['Usage', 'API reference', 'ApiKeys']) await visit.page.getByRole('link', { name: page, exact: true }).click();
  expect(await kept()).not.toContain(key);
  expect(addresses.filter((one) => one.includes(key))).toEqual([]);
  // An API key opens nothing of the page's own routes.
  const status = await visit.page.evaluate(
    async (secret) => (await fetch('/api/keys', { headers: { authorization: `Bearer ${secret}` }, credentials: 'omit' })).status,
    key,
  );
  expect(status).toBe(401);
  visit.allow(/status of 401/);
  await visit.close();
});
