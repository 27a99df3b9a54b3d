// The list of conversations by day. Pure.
import type { ChatSummary } from '../api/types';

export type GroupName = 'today' | 'yesterday' | 'earlier';
export interface Group {
  name: GroupName;
  chats: ChatSummary[];
}

/** Newest first, in the reader's own days. */
export function groupByDay(chats: readonly ChatSummary[], now: Date): Group[] {
  const today = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime() / 1000;
  // Not 24 hours before: days of a clock change are longer or shorter.
  const yesterday = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1).getTime() / 1000;
  const groups: Group[] = [
    { name: 'today', chats: [] },
    { name: 'yesterday', chats: [] },
    { name: 'earlier', chats: [] },
  ];
  for (const chat of [...chats].sort((a, b) => b.updated - a.updated)) {
    groups[chat.updated >= today ? 0 : chat.updated >= yesterday ? 1 : 2]!.chats.push(chat);
  }
  return groups.filter((group) => group.chats.length > 0);
}

/** A text cut where it was searched: `[before, hit, after, hit, …]`, hits at odd places. */
export function marked(text: string, search: string): string[] {
  const wanted = search.trim();
  if (!wanted) return [text];
  const escaped = wanted.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return text.split(new RegExp(`(${escaped})`, 'giu'));
}
