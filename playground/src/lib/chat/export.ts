// A conversation as a file: JSON with everything, Markdown with what was shown. Pure.
import type { Chat, ChatDocument } from '../api/types';
import { comparison, pathTo } from './tree';

export interface ExportWords {
  you: string;
  system: string;
  noAnswer: string;
}

/** The shown path; an open comparison has all its answers. */
export function toMarkdown(chat: ChatDocument, say: ExportWords): string {
  const parts = [`# ${chat.title}`];
  if (chat.system.trim()) parts.push(`## ${say.system}`, chat.system.trim());
  const columns = comparison(chat.nodes, chat.leaf)?.map((column) => column.answers.at(-1)!) ?? [];
  for (const node of [...pathTo(chat.nodes, chat.leaf), ...columns]) {
    const who = node.role === 'user' ? say.you : `${node.model ?? ''}${node.revision === undefined ? '' : ` (r${node.revision})`}`;
    parts.push(`## ${who}`, node.content.trim() || `*${say.noAnswer}*`);
  }
  return `${parts.join('\n\n')}\n`;
}

export const toJson = (chat: Chat) => `${JSON.stringify(chat, null, 2)}\n`;

/** A file's name from a title: nothing that a file system or a shell could misread. */
export function fileName(title: string, extension: string): string {
  const name = title
    .normalize('NFKC')
    .replace(/[^\p{L}\p{N}]+/gu, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 60);
  return `${name || 'chat'}.${extension}`;
}
