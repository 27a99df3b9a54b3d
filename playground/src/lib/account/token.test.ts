import { expect, it } from 'vitest';
import { pastedToken, takeToken } from './token';

const TOKEN = 'g_kXrTTtcKPQR_TV7y2USDoYKV05dBW8bhrCwYJvJko';

it('takes the token out of the address bar', () => {
  history.replaceState(null, '', `/welcome?x=1#token=${TOKEN}`);
  expect(takeToken()).toBe(TOKEN);
  expect(location.href).not.toContain(TOKEN);
  expect(location.pathname + location.search).toBe('/welcome?x=1');
  expect(takeToken()).toBeUndefined();
});

it.each([`http://localhost:45678/welcome#token=${TOKEN}`, `#token=${TOKEN}`, `token=${TOKEN}`, ` ${TOKEN}\n`])('finds the token in %j', (text) => {
  expect(pastedToken(text)).toBe(TOKEN);
});

it.each(['', 'hello', 'http://localhost:45678/welcome', '#token=', 'two words that are long'])('finds none in %j', (text) => {
  expect(pastedToken(text)).toBeUndefined();
});
