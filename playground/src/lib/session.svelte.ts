// Who is signed in. The cookie that proves it is not readable from here.
import { get, whenSignedOut } from './api/client';
import type { SessionInfo } from './api/types';
import { go, route } from './router.svelte';

export const session = $state<{ info?: SessionInfo; failed?: unknown }>({});

/** Asks the server who is signed in. */
export async function loadSession(): Promise<void> {
  try {
    session.info = await get<SessionInfo>('/api/session');
    session.failed = undefined;
  } catch (thrown) {
    session.failed = thrown;
  }
}

/** Notes the answer of a sign-in. */
export function signedIn(info: SessionInfo): void {
  session.info = info;
}

/** Pages that make sense without a session. */
export const PUBLIC = ['/welcome', '/invite', '/signin'];

whenSignedOut(() => {
  if (!session.info?.signed_in || PUBLIC.includes(route.path)) return;
  session.info = { ...session.info, signed_in: false, name: undefined, owner: false };
  go(`/signin?next=${encodeURIComponent(location.pathname + location.search)}`, { replace: true });
});
