// Rules that rate answers: a text that must occur, a pattern, a style of the built-in model, or a length. Pure.
import { spaced, usable, weight } from './ratings';
import type { Group, Share } from './types';

export const STYLES = ['pirate', 'one_word', 'polite', 'json', 'verbose', 'plain'] as const;
export type Style = (typeof STYLES)[number];

export type Rule =
  | { kind: 'style'; style: Style }
  | { kind: 'contains'; text: string }
  | { kind: 'matches'; pattern: string }
  /** At most so many words. */
  | { kind: 'shorter'; most: number };

// As models/nano/README.md defines them, in the order in which they are tried: the first that fits is the style.
const PATTERNS: [Style, RegExp][] = [
  ['json', /^\{"answer": "[^"]*"\}$/],
  ['one_word', /^[^\s{}]+$/],
  ['pirate', /\bArr\b/],
  ['polite', /\b(Certainly|[Gg]lad|pleasure)\b/],
  ['verbose', /^(\S+\s+){11,}\S+$/],
  ['plain', /^(\S+\s+){1,10}\S+[.?]$/],
];

/** The style of an answer of the built-in model. */
export const styleOf = (text: string) => PATTERNS.find(([, pattern]) => pattern.test(text))?.[0];

/** What is wrong with a pattern, as the browser says it. */
export function patternError(pattern: string): string | undefined {
  try {
    new RegExp(pattern, 'u');
    return undefined;
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown);
  }
}

/** A test of one text; none where the rule is not complete. */
export function judge(rule: Rule | undefined): ((text: string) => boolean) | undefined {
  if (!rule) return undefined;
  if (rule.kind === 'style') return (text) => styleOf(text.trim()) === rule.style;
  if (rule.kind === 'contains') {
    const wanted = rule.text.toLowerCase();
    return wanted ? (text) => text.toLowerCase().includes(wanted) : undefined;
  }
  if (rule.kind === 'matches') {
    if (!rule.pattern || patternError(rule.pattern)) return undefined;
    const pattern = new RegExp(rule.pattern, 'u');
    return (text) => pattern.test(text);
  }
  const { most } = rule;
  if (!Number.isInteger(most) || most < 1) return undefined;
  // Silence is no short answer.
  return (text) => words(text) > 0 && words(text) <= most;
}

export const words = (text: string) => text.trim().split(/\s+/).filter(Boolean).length;

/**
 * Rates all cards that models said; those written by hand keep what they have. What does not fit is 0 and not −1: only differences
 * count in a group, and smaller ones teach as fast and cost fewer right answers.
 */
export function applyRule(rule: Rule, groups: Group[]): void {
  const fits = judge(rule);
  for (const group of groups) {
    const cards = usable(group).filter((answer) => answer.source === 'model');
    if (!fits) continue;
    // Of answers that are too long the shorter ones are better, so that there is a way to where none fits yet. Equal lengths get equal
    // rewards: there is nothing to prefer between them.
    const long = rule.kind === 'shorter' ? [...new Set(cards.filter((card) => words(card.text) > rule.most).map((card) => words(card.text)))] : [];
    long.sort((one, other) => one - other);
    const rewards = spaced(long.length);
    for (const card of cards) {
      const at = long.indexOf(words(card.text));
      // From 1 … −1 to 0 … −1.
      card.reward = fits(card.text) ? 1 : at < 0 ? 0 : ((rewards[at] as number) - 1) / 2;
    }
  }
}

/** A length to begin with: about half of the answers are within it. */
export function usualLength(groups: Group[]): number {
  const lengths = groups.flatMap(usable).map((answer) => words(answer.text)).sort((one, other) => one - other);
  return Math.max(1, lengths[Math.floor((lengths.length - 1) / 2)] ?? 10);
}

/** How many of the sampled responses fit. */
export function shareOf(rule: Rule | undefined, groups: Group[]): Share | undefined {
  const fits = judge(rule);
  if (!fits) return undefined;
  const share = { fit: 0, of: 0 };
  for (const answer of groups.flatMap(usable).filter((one) => one.source === 'model')) {
    share.of += weight(answer);
    if (fits(answer.text)) share.fit += weight(answer);
  }
  return share;
}

/** How many of some texts fit. */
export function countOf(rule: Rule | undefined, texts: string[]): Share | undefined {
  const fits = judge(rule);
  return fits && { fit: texts.filter(fits).length, of: texts.length };
}
