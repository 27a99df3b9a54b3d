// How hard a password is to guess, roughly, in words. Advice only: the server has the one rule, its length. Knows no form.

/** The server's least length. */
export const MIN_PASSWORD = 8;

export const STRENGTHS = ['short', 'weak', 'fair', 'good', 'strong'] as const;
export type Strength = (typeof STRENGTHS)[number];

/** What everybody tries first. */
const COMMON = /^(password|passwort|passw0rd|qwerty|qwertz|azerty|letmein|welcome|admin|iloveyou|tiger|tigercity|abc|123|1234|12345|123456)+[\d!.]*$/i;

/** Characters that tell something new: runs such as `aaaa`, `1234` and `dcba` count about as one. */
function telling(text: string): number {
  let telling = 0;
  let before = Number.NaN;
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    telling += Math.abs(code - before) <= 1 ? 0.25 : 1;
    before = code;
  }
  return telling;
}

/** The strength of a password; the user's name in it counts for nothing. */
export function strength(password: string, name = ''): Strength {
  if ([...password].length < MIN_PASSWORD) return 'short';
  const rest = name.length > 2 ? password.toLowerCase().replaceAll(name.toLowerCase(), '') : password;
  if (COMMON.test(password) || new Set(rest).size < 4) return 'weak';
  const kinds = [/[a-z]/, /[A-Z]/, /\d/, /[^a-zA-Z\d]/].filter((kind) => kind.test(password)).length;
  const score = telling(rest) * (0.8 + 0.2 * kinds);
  return score < 8 ? 'weak' : score < 13 ? 'fair' : score < 18 ? 'good' : 'strong';
}
