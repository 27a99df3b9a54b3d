// Rules that rate answers: a text that must occur, a pattern, a style of the built-in model, or the shorter the better. Pure.
import { spaced, usable, weight } from './ratings';
import type { Group, Share } from './types';

export const STYLES = ['pirate', 'one_word', 'polite', 'json', 'verbose', 'plain'] as const;
export type Style = (typeof STYLES)[number];

export type Rule =
  | { kind: 'style'; style: Style }
  | { kind: 'contains'; text: string }
  | { kind: 'matches'; pattern: string }
  | { kind: 'shorter' };

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

/** A test of one text; none where the rule compares texts with each other or is not complete. */
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
  return undefined;
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
    if (rule.kind === 'shorter') {
      // Equal lengths get equal rewards: there is nothing to prefer between them.
      const lengths = [...new Set(cards.map((card) => card.text.length))].sort((one, other) => one - other);
      const rewards = spaced(lengths.length);
      for (const card of cards) card.reward = rewards[lengths.indexOf(card.text.length)];
    } else if (fits) {
      for (const card of cards) card.reward = fits(card.text) ? 1 : 0;
    }
  }
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
