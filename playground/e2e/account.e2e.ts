// First run, signing in and out, wrong and too many passwords, invitations, a changed password, a deleted account.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { InvitationResponse, ModelInfo } from '../src/lib/api/types';
import { openBrowser, OWNER, Server, type Visit } from './harness';

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

const stranger = (on = server) => on.visit(browser, { signedIn: false, reducedMotion: 'reduce' });
const button = (visit: Visit, name: string | RegExp) => visit.page.getByRole('button', { name, exact: typeof name === 'string' });
const password = (visit: Visit, label = 'Password') => visit.page.getByLabel(label, { exact: true });

async function signIn(visit: Visit, name: string, secret: string): Promise<void> {
  await visit.page.getByLabel('Name', { exact: true }).fill(name);
  await password(visit).fill(secret);
  await button(visit, 'Sign in').click();
}

/** Makes an account by an invitation, in a browser of its own. */
async function join(name: string, secret: string): Promise<Visit> {
  const { invitation } = await server.call<InvitationResponse>('POST', '/api/invitations');
  const visit = await stranger();
  await visit.page.goto(server.url(`/invite#token=${invitation}`));
  await visit.page.getByLabel('Name', { exact: true }).fill(name);
  await password(visit).fill(secret);
  await button(visit, 'Create my account').click();
  await visit.page.waitForURL('**/chat');
  return visit;
}

test('the link of the first run makes the owner and leads to the first chat', async () => {
  const fresh = await Server.start();
  try {
    const visit = await stranger(fresh);
    // Without the link: told where it is; nonsense is no token.
    await visit.page.goto(fresh.url('/'));
    await visit.page.waitForURL('**/welcome');
    await visit.page.getByRole('heading', { name: 'Open the link from the terminal' }).waitFor();
    await visit.expectAccessible('welcome without a link');
    await visit.page.getByLabel('Link or token').fill('hello');
    await button(visit, 'Continue').click();
    await visit.page.getByText('There is no token in this').waitFor();

    // A token of an earlier start.
    visit.allow(/status of 403/);
    await visit.page.getByLabel('Link or token').fill(`${fresh.url('/welcome')}#token=${'x'.repeat(43)}`);
    await button(visit, 'Continue').click();
    await visit.page.getByLabel('Name', { exact: true }).fill(OWNER.name);
    await password(visit).fill(OWNER.password);
    await button(visit, 'Create the account').click();
    await visit.page.getByText('not the one of the running server').waitFor();

    // The link itself.
    await visit.page.goto('about:blank');
    await visit.page.goto(fresh.url(`/welcome#token=${fresh.setupToken}`));
    await visit.page.getByRole('heading', { name: "Create the owner's account" }).waitFor();
    expect(visit.page.url()).not.toContain(fresh.setupToken);
    await visit.expectAccessible('welcome');
    await visit.page.getByLabel('Name', { exact: true }).fill(OWNER.name);
    await password(visit).fill('short');
    await visit.page.getByText('too short').waitFor();
    await button(visit, 'Create the account').click();
    await visit.page.getByText('Use at least 8 characters.').waitFor();
    await password(visit).fill(OWNER.password);
    await button(visit, 'Create the account').click();
    await visit.page.waitForURL('**/chat');

    // Going back shows no form for a second owner.
    await visit.page.goto(fresh.url('/welcome'));
    await visit.page.waitForURL('**/chat');
    await visit.close();
  } finally {
    await fresh.stop();
  }
});

test('signs out, and in again to where one was headed', async () => {
  await server.call('GET', '/api/session');
  const visit = await stranger();
  visit.allow(/status of 401/);
  await visit.page.goto(server.url('/keys?x=1'));
  await visit.page.waitForURL('**/signin?next=*');
  await signIn(visit, OWNER.name, 'wrong password');
  await visit.page.getByText('The name or the password is wrong.').waitFor();
  expect(await password(visit).evaluate((field) => field === document.activeElement)).toBe(true);
  await password(visit).fill(OWNER.password);
  await visit.page.keyboard.press('Enter');
  await visit.page.waitForURL('**/keys?x=1');
  await visit.page.goto(server.url('/account'));
  await visit.page.getByRole('main').getByRole('button', { name: 'Sign out' }).click();
  await visit.page.waitForURL('**/signin');
  await visit.page.goto(server.url('/account'));
  await visit.page.waitForURL('**/signin?next=%2Faccount');
  await visit.page.getByText('Forgotten your password?').click();
  await visit.page.getByText('tiger accounts password NAME').waitFor();
  await visit.close();
});

test('too many attempts are told when to come back', async () => {
  for (let attempt = 0; attempt < 10; attempt++) {
    await fetch(`${server.api}/api/session`, {
      method: 'POST',
      headers: { 'x-tiger-csrf': '1', 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'mallory', password: 'guess number ' + attempt }),
    });
  }
  const visit = await stranger();
  visit.allow(/status of 429/);
  await visit.page.goto(server.url('/signin'));
  await signIn(visit, 'mallory', 'another guess');
  await visit.page.getByText(/You can try again in \d+ s/).waitFor();
  await expect.poll(() => button(visit, /^Wait \d+ s$/).isDisabled()).toBe(true);
  // It counts down to a button that works again.
  await expect.poll(() => button(visit, 'Sign in').isEnabled(), { timeout: 20_000 }).toBe(true);
  await visit.close();
});

test('an invitation makes one account, which sees nothing of the others', async () => {
  await server.call('POST', '/v1/models', { name: 'Secret', description: '', parent_model: 'tiger-nano' });
  const owner = await server.visit(browser, { reducedMotion: 'reduce' });
  await owner.page.goto(server.url('/account'));
  await button(owner, 'Invite someone').click();
  const link = await owner.page.getByLabel('Invitation link').inputValue();
  expect(link).toMatch(/\/invite#token=[\w-]{20,}$/);
  await owner.page.keyboard.press('Escape');
  await owner.page.keyboard.press('Escape');
  await owner.page.getByRole('dialog').waitFor();
  await owner.expectAccessible('the link of an invitation');
  await button(owner, 'Done').click();
  await owner.page.getByText('Open invitations').waitFor();

  const guest = await stranger();
  await guest.page.goto(link);
  await guest.page.getByRole('heading', { name: 'You are invited' }).waitFor();
  expect(guest.page.url()).not.toContain('token');
  guest.allow(/status of 409/);
  await guest.page.getByLabel('Name', { exact: true }).fill(OWNER.name);
  await password(guest).fill('battery horse staple');
  await button(guest, 'Create my account').click();
  await guest.page.getByText(/is taken/).waitFor();
  await guest.page.getByLabel('Name', { exact: true }).fill('grace');
  await button(guest, 'Create my account').click();
  await guest.page.waitForURL('**/chat');
  const seen = await guest.page.evaluate(async () => (await (await fetch('/v1/models', { headers: { 'x-tiger-csrf': '1' } })).json()) as ModelInfo[]);
  expect(seen.map((model) => model.id)).toContain('tiger-nano');
  expect(seen.map((model) => model.name)).not.toContain('Secret');
  await guest.page.goto(server.url('/account'));
  await guest.page.getByText('Member', { exact: true }).waitFor();
  expect(await button(guest, 'Invite someone').count()).toBe(0);
  await guest.close();

  // The link is used up.
  const late = await stranger();
  late.allow(/status of 403/);
  await late.page.goto(link);
  await late.page.getByLabel('Name', { exact: true }).fill('eve');
  await password(late).fill('battery horse staple');
  await button(late, 'Create my account').click();
  await late.page.getByRole('heading', { name: 'This invitation no longer works' }).waitFor();
  await late.expectAccessible('a used invitation');
  await late.close();

  // A withdrawn one leaves the list.
  await button(owner, 'Invite someone').click();
  await button(owner, 'Done').click();
  await button(owner, 'Withdraw').first().click();
  await owner.page.getByText('its link no longer works').waitFor();
  await expect.poll(() => button(owner, 'Withdraw').count()).toBe(0);
  await owner.close();
});

test('a changed password signs other sessions out, and the new one works', async () => {
  const here = await join('hedy', 'an old password');
  const there = await stranger();
  await there.page.goto(server.url('/signin'));
  await signIn(there, 'hedy', 'an old password');
  await there.page.waitForURL('**/chat');

  here.allow(/status of 403/);
  await here.page.goto(server.url('/account'));
  await password(here, 'Current password').fill('not the old one');
  await password(here, 'New password').fill('a new password');
  await button(here, 'Change the password').click();
  await here.page.getByText('This is not your current password.').waitFor();
  await password(here, 'Current password').fill('an old password');
  await button(here, 'Change the password').click();
  await here.page.getByText('The password was changed.').waitFor();
  // This session goes on.
  await here.page.goto(server.url('/keys'));
  await here.page.getByRole('heading', { name: 'ApiKeys' }).waitFor();
  await here.close();

  there.allow(/status of 401/);
  await there.page.goto(server.url('/keys'));
  await there.page.waitForURL('**/signin?next=*');
  await signIn(there, 'hedy', 'an old password');
  await there.page.getByText('The name or the password is wrong.').waitFor();
  await password(there).fill('a new password');
  await there.page.keyboard.press('Enter');
  await there.page.waitForURL('**/keys');
  await there.close();
});

test('deleting an account wants its name typed, and ends its sessions', async () => {
  const guest = await join('judy', 'horse battery staple');
  const owner = await server.visit(browser, { reducedMotion: 'reduce' });
  await owner.page.goto(server.url('/account'));
  await button(owner, 'Delete the account: judy').click();
  const confirm = owner.page.getByRole('dialog').getByRole('button', { name: 'Delete the account' });
  expect(await confirm.isDisabled()).toBe(true);
  await owner.page.getByLabel('Type judy to confirm').fill('jud');
  expect(await confirm.isDisabled()).toBe(true);
  await owner.page.getByLabel('Type judy to confirm').fill('judy');
  await owner.expectAccessible('deleting an account');
  await confirm.click();
  await owner.page.getByText('The account of judy was deleted.').waitFor();
  await owner.close();
  guest.allow(/status of 401/);
  await guest.page.goto(server.url('/keys'));
  await guest.page.waitForURL('**/signin*');
  await guest.close();
});
