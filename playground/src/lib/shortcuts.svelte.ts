// Keyboard shortcuts: pages register them while they are shown, the `?` sheet lists them.
import { untrack } from 'svelte';

export interface Shortcut {
  /** As `KeyboardEvent.key`; letters in lower case. */
  key: string;
  /** Ctrl, or Cmd on a Mac. */
  mod?: boolean;
  shift?: boolean;
  /** Works while a text field has the focus; those with `mod` always do. */
  typing?: boolean;
  label: string;
  run: () => void;
}

export const isMac = /Mac|iP(hone|ad)/.test(navigator.platform);
export const shortcuts = $state<Shortcut[]>([]);

/** Adds shortcuts and returns what removes them: `$effect(() => register([...]))`. */
export function register(mine: Shortcut[]): () => void {
  // An effect that registers must not run again for what others register.
  untrack(() => shortcuts.push(...mine));
  return () => {
    for (const one of mine) {
      const at = shortcuts.findIndex((other) => other.key === one.key && other.label === one.label);
      if (at >= 0) shortcuts.splice(at, 1);
    }
  };
}

function isTyping(target: EventTarget | null): boolean {
  const element = target as HTMLElement | null;
  return !!element?.matches?.('input:not([type=checkbox],[type=radio],[type=range]), textarea, select, [contenteditable]');
}

/** The window's one keydown handler. */
export function onKeydown(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.isComposing) return;
  // A dialog has its own keys.
  if (document.querySelector('dialog[open]')) return;
  const mod = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  // The latest registered wins: a page's own over the app's.
  const found = shortcuts.findLast(
    (one) =>
      one.key === key &&
      !!one.mod === mod &&
      // Signs such as `?` need Shift on some keyboards only; with Ctrl it tells two shortcuts apart.
      (!mod || !!one.shift === event.shiftKey) &&
      !event.altKey &&
      (one.mod || one.typing || !isTyping(event.target)),
  );
  if (!found) return;
  event.preventDefault();
  found.run();
}

/** `Ctrl + Enter`, or `⌘ Enter`. */
export function keysOf(one: Pick<Shortcut, 'key' | 'mod' | 'shift'>): string[] {
  const names: Record<string, string> = { Escape: 'Esc', ArrowLeft: '←', ArrowRight: '→', ArrowUp: '↑', ArrowDown: '↓' };
  const key = names[one.key] ?? (one.key.length === 1 ? one.key.toUpperCase() : one.key);
  return [...(one.mod ? [isMac ? '⌘' : 'Ctrl'] : []), ...(one.shift ? ['Shift'] : []), key];
}
