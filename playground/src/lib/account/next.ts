// Where to go after signing in. Knows that an address may come from a stranger: only paths of this site count.

/** The path to go on with; anything that could leave this site becomes the chat page. */
export function safeNext(next: string | null | undefined, home = '/chat'): string {
  if (!next?.startsWith('/')) return home;
  // Browsers read `\` as `/` and drop tabs and newlines, so `/\evil`, `//evil` and `/<tab>/evil` would all name another host.
  if (/^\/[/\\]|[\u0000-\u0020\u007f]/.test(next)) return home;
  const url = new URL(next, 'http://here.invalid');
  if (url.origin !== 'http://here.invalid') return home;
  // A path such as `/.//evil` is normalised to one with two slashes in front.
  if (url.pathname.startsWith('//')) return home;
  // Signing in to come back to the sign-in page makes no sense, and the server's own routes are no pages.
  if (/^\/(signin|welcome|invite|api|v1|metrics|openapi\.json)(\/|$)/.test(url.pathname)) return home;
  return url.pathname + url.search + url.hash;
}
