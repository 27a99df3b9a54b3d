// One-time tokens that come in the address after `#token=`. They are taken out of the address bar at once, so that neither the history nor
// a screenshot keeps them, and live in memory only.

/** The token of a fragment such as `#token=abc`. */
export function tokenOf(fragment: string): string | undefined {
  return new URLSearchParams(fragment.replace(/^#/, '')).get('token')?.trim() || undefined;
}

/** Takes the token out of the address bar. */
export function takeToken(): string | undefined {
  const token = tokenOf(location.hash);
  if (location.hash) history.replaceState(null, '', location.pathname + location.search);
  return token;
}

/** The token in what somebody pasted: the whole link, its end, or the token alone. */
export function pastedToken(text: string): string | undefined {
  const trimmed = text.trim();
  const hash = trimmed.indexOf('#');
  if (hash >= 0) return tokenOf(trimmed.slice(hash));
  if (/^token=/.test(trimmed)) return tokenOf(trimmed);
  return /^[\w-]{16,}$/.test(trimmed) ? trimmed : undefined;
}
