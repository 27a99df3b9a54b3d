// The address bar as state. Knows no page.

export const route = $state({ path: location.pathname, query: new URLSearchParams(location.search) });

function read(): void {
  route.path = location.pathname;
  route.query = new URLSearchParams(location.search);
}

window.addEventListener('popstate', read);

/** Goes to a page of this app; `replace` leaves no step back. */
export function go(to: string, options: { replace?: boolean } = {}): void {
  if (options.replace) history.replaceState(null, '', to);
  else history.pushState(null, '', to);
  const before = route.path;
  read();
  if (!options.replace && before !== route.path) scrollTo(0, 0);
}

/** For `onclick` of links: a plain click stays in the app, a modified one is the browser's. */
export function follow(event: MouseEvent): void {
  const link = (event.target as Element | null)?.closest('a');
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || link.target || link.hasAttribute('download') || link.getAttribute('href')?.startsWith('#')) return;
  if (/^\/(v1|api|openapi\.json|metrics)/.test(url.pathname)) return;
  event.preventDefault();
  go(url.pathname + url.search + url.hash);
}
