// Which conversation is shown. Those that are being answered or saved live on while another one is looked at.
import { get } from '../api/client';
import type { Chat } from '../api/types';
import { defaultModel, findModel } from '../models.svelte';
import { go, route } from '../router.svelte';
import { Conversation } from './conversation.svelte';
import { noteSaved } from './list.svelte';

export const store = $state<{ current: Conversation; wanted?: string; loading: boolean; failed?: unknown }>({ current: prepare(new Conversation()), loading: false });

const open = new Map<string, Conversation>();
/** What was being written, by conversation; the empty id is a new one. */
const drafts = new Map<string, string>();
let turn = 0;

function prepare(conversation: Conversation): Conversation {
  conversation.onsaved = noteSaved;
  conversation.oncreated = (id) => {
    open.set(id, conversation);
    if (store.current === conversation && route.path.startsWith('/chat')) {
      store.wanted = id;
      go(`/chat/${id}`, { replace: true });
    }
  };
  return conversation;
}

/** Of the open ones, those that still do something. */
function tidy(): void {
  for (const [id, one] of open) if (one !== store.current && !one.busy && !one.unsaved) open.delete(id);
}

function leaveCurrent(): void {
  const { id, draft } = store.current;
  if (draft) drafts.set(id ?? '', draft);
  else drafts.delete(id ?? '');
  void store.current.flush();
  tidy();
}

function enter(conversation: Conversation): void {
  conversation.draft = drafts.get(conversation.id ?? '') ?? conversation.draft;
  store.current = conversation;
  store.failed = undefined;
  store.loading = false;
}

/** Shows a stored conversation, or a new one. */
export async function show(id: string | undefined): Promise<void> {
  if (store.wanted === id && !store.failed && (id !== undefined || store.current.nodes.length === 0)) return;
  const mine = ++turn;
  leaveCurrent();
  store.wanted = id;
  if (id === undefined) {
    const { model } = store.current;
    enter(prepare(new Conversation()));
    store.current.model = model;
    return;
  }
  const known = open.get(id);
  if (known && (known.busy || known.unsaved)) return enter(known);
  store.loading = true;
  store.failed = undefined;
  try {
    const chat = await get<Chat>(`/api/chats/${encodeURIComponent(id)}`);
    if (mine !== turn) return;
    const conversation = prepare(new Conversation(chat));
    open.set(id, conversation);
    enter(conversation);
  } catch (thrown) {
    if (mine !== turn) return;
    store.failed = thrown;
    store.loading = false;
  }
}

/** Reads the shown conversation again: after a conflict, "load that version". */
export async function reload(): Promise<void> {
  const { id } = store.current;
  store.current.end();
  if (id) open.delete(id);
  store.wanted = undefined;
  store.failed = undefined;
  turn++;
  store.current = prepare(new Conversation());
  await show(id);
}

/** A conversation was deleted: nothing saves it again. */
export function dropped(id: string | undefined): void {
  for (const [one, conversation] of open) {
    if (id !== undefined && one !== id) continue;
    conversation.end();
    open.delete(one);
  }
  if (id === undefined || store.current.id === id) {
    const { model } = store.current;
    store.current.end();
    store.current = prepare(new Conversation());
    store.current.model = model;
    store.wanted = undefined;
    go('/chat', { replace: true });
  }
}

/** An open conversation by id, if it is open. */
export const opened = (id: string) => (store.current.id === id ? store.current : open.get(id));

/** Chooses the model of a new conversation: the one of the address, else the default. */
export function chooseModel(asked: string | null): void {
  const found = findModel(asked);
  if (found) store.current.model = found.id;
  else if (!store.current.model || !findModel(store.current.model)) store.current.model = defaultModel()?.id ?? store.current.model;
}

function leave(): void {
  for (const one of new Set([store.current, ...open.values()])) one.leave();
}

addEventListener('pagehide', leave);
