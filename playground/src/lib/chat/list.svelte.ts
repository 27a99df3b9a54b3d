// The list of stored conversations: searched on the server, a page at a time.
import { del, get, put } from '../api/client';
import type { Chat, ChatSummary } from '../api/types';

interface Answer {
  chats: ChatSummary[];
  next?: string;
}

export const list = $state<{ chats: ChatSummary[]; next?: string; loaded: boolean; loading: boolean; failed?: unknown; search: string; found: string }>({
  chats: [],
  loaded: false,
  loading: false,
  search: '',
  found: '',
});

const PAGE = 50;
let turn = 0;

async function fetchPage(before?: string): Promise<void> {
  const mine = ++turn;
  const search = list.search.trim();
  list.loading = true;
  const query = new URLSearchParams({ limit: String(PAGE) });
  if (search) query.set('search', search);
  if (before) query.set('before', before);
  try {
    const answer = await get<Answer>(`/api/chats?${query}`);
    if (mine !== turn) return;
    const known = new Set(before ? list.chats.map((chat) => chat.id) : []);
    list.chats = [...(before ? list.chats : []), ...answer.chats.filter((chat) => !known.has(chat.id))];
    list.next = answer.next;
    list.found = search;
    list.loaded = true;
    list.failed = undefined;
  } catch (thrown) {
    if (mine === turn) list.failed = thrown;
  } finally {
    if (mine === turn) list.loading = false;
  }
}

export const loadList = () => fetchPage();
export const loadMore = () => (list.next && !list.loading ? fetchPage(list.next) : Promise.resolve());

/** Puts a conversation that was just saved where it belongs, without asking again. */
export function noteSaved(chat: Chat): void {
  if (list.found) {
    const at = list.chats.findIndex((one) => one.id === chat.id);
    if (at >= 0) list.chats[at] = { ...list.chats[at]!, title: chat.title, updated: chat.updated };
    return;
  }
  const { id, title, model, created, updated, version } = chat;
  list.chats = [{ id, title, model, created, updated, version, messages: chat.nodes.length }, ...list.chats.filter((one) => one.id !== id)];
}

/** Renames one that is not open. */
export async function renameStored(id: string, title: string): Promise<void> {
  const { version, ...chat } = await get<Chat>(`/api/chats/${id}`);
  noteSaved(await put<Chat>(`/api/chats/${id}`, { title, model: chat.model, system: chat.system, settings: chat.settings, nodes: chat.nodes, leaf: chat.leaf, version }));
}

export async function deleteStored(id: string): Promise<void> {
  await del(`/api/chats/${id}`);
  list.chats = list.chats.filter((chat) => chat.id !== id);
}

export async function deleteAll(): Promise<number> {
  const { deleted } = await del<{ deleted: number }>('/api/chats');
  list.chats = [];
  list.next = undefined;
  return deleted;
}
