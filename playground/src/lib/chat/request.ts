// From a conversation to what is sent. Pure; knows no page.
import type { ChatNode, ChatSettings, GenerateRequest, Message } from '../api/types';
import type { Call } from '../code/snippets';

/**
 * The messages of a path. Answers without a word (they failed) are left out, and questions that thus follow each other are joined:
 * templates want user and assistant in turns.
 */
export function messagesOf(system: string, path: readonly ChatNode[]): Message[] {
  const messages: Message[] = system.trim() ? [{ role: 'system', content: system }] : [];
  for (const node of path) {
    if (node.role === 'assistant' && node.content === '') continue;
    const last = messages.at(-1);
    if (last && last.role === node.role) last.content += `\n\n${node.content}`;
    else messages.push({ role: node.role, content: node.content });
  }
  return messages;
}

/** Only what was set: the rest is the model's own. */
export function requestOf(model: string, system: string, settings: ChatSettings, path: readonly ChatNode[]): GenerateRequest {
  const set = Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0)));
  return { model, messages: messagesOf(system, path), ...set };
}

/** The same as a call to show. */
export function callOf(request: GenerateRequest): Call {
  return { method: 'POST', path: '/v1/generate_response', body: { ...request, stream: true } };
}

/** A conversation's name: the first words of its first message. */
export function titleOf(prompt: string): string {
  const line = prompt.trim().replace(/\s+/g, ' ');
  if (line.length <= 60) return line;
  const cut = line.slice(0, 60);
  const space = cut.lastIndexOf(' ');
  return `${(space > 30 ? cut.slice(0, space) : cut).replace(/[\s,.;:–-]+$/, '')}…`;
}

/** Tokens a second while writing: without the wait for the first, where that is known and what is left is long enough to measure. */
export function speed(node: Pick<ChatNode, 'usage' | 'first_token_s'>): number | undefined {
  const { usage, first_token_s: first } = node;
  if (!usage || usage.output_tokens < 2 || usage.duration <= 0) return undefined;
  const writing = usage.duration - (first ?? 0);
  return writing > 0.05 ? (usage.output_tokens - 1) / writing : usage.output_tokens / usage.duration;
}

/** Words, as people count them. */
export const words = (text: string) => text.match(/\S+/g)?.length ?? 0;
