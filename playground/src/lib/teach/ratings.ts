// From what somebody says about answers to rewards, and whether these can teach anything. Pure.
import type { Answer, Group } from './types';

/** Equal texts of one model become one card, rated together: the same answer twice is no two opinions. */
export function fold(answers: Answer[]): Answer[] {
  const cards = new Map<string, Answer>();
  for (const answer of answers) {
    const key = answer.source === 'mine' ? answer.id : `${answer.model}\n${answer.reasoning}\n${answer.text}`;
    const same = cards.get(key);
    if (same) {
      same.responseIds.push(...answer.responseIds);
      same.cut ||= answer.cut;
      same.reward ??= answer.reward;
    } else cards.set(key, { ...answer, responseIds: [...answer.responseIds] });
  }
  return [...cards.values()];
}

/** What is trained for a card that nobody rated: neither good nor bad. */
export const rewardOf = (answer: Answer) => answer.reward ?? 0;

/** How many responses a card stands for; an empty card of one's own stands for none. */
export function weight(answer: Answer): number {
  if (answer.source === 'mine') return answer.text.trim() ? 1 : 0;
  return answer.responseIds.length;
}

/** The cards of a group that can be trained. */
export const usable = (group: Group) => group.answers.filter((answer) => weight(answer) > 0);

const rounded = (value: number) => Math.round(value * 1000) / 1000;

/** Evenly spaced from 1 down to −1; equal for a single one. */
export function spaced(count: number): number[] {
  return Array.from({ length: count }, (_, at) => (count === 1 ? 1 : rounded(1 - (2 * at) / (count - 1))));
}

/** Best first, as ratings have it; equal ones stay in their order. */
export function sorted(answers: Answer[]): Answer[] {
  return [...answers].sort((one, other) => rewardOf(other) - rewardOf(one));
}

/** Gives the cards the rewards of their places. */
export function rankInPlace(answers: Answer[]): void {
  const rewards = spaced(answers.length);
  answers.forEach((answer, at) => (answer.reward = rewards[at]));
}

/** Moves a card to a place and ranks all by their new order. */
export function moved(answers: Answer[], from: number, to: number): Answer[] {
  const order = [...answers];
  const [card] = order.splice(from, 1);
  if (card) order.splice(Math.max(0, Math.min(order.length, to)), 0, card);
  rankInPlace(order);
  return order;
}

/** In another order, each as likely. */
export function shuffled<T>(items: T[], random: () => number = Math.random): T[] {
  const order = [...items];
  for (let at = order.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1));
    [order[at], order[other]] = [order[other] as T, order[at] as T];
  }
  return order;
}

const isRated = (group: Group) => usable(group).some((answer) => answer.reward !== undefined);

/** Whether a group's ratings prefer something, or it has a single response, which is compared with earlier ones. */
function teaches(group: Group): boolean {
  const cards = usable(group);
  const responses = cards.reduce((sum, card) => sum + weight(card), 0);
  return responses === 1 || cards.some((card) => rewardOf(card) !== rewardOf(cards[0] as Answer));
}

/** The groups that go into the request: rated, and with something to prefer. Equal ones would only make the step smaller. */
export const chosen = (groups: Group[]) => groups.filter((group) => isRated(group) && teaches(group));

export interface Readiness {
  state: 'empty' | 'unrated' | 'equal' | 'ready';
  /** Cards. */
  rated: number;
  of: number;
  /** Groups that are rated but have nothing to prefer. */
  equal: number;
  /** Groups of one response. */
  single: number;
  /** Groups that will be sent. */
  used: number;
}

export function readiness(groups: Group[]): Readiness {
  const cards = groups.flatMap(usable);
  const rated = groups.filter(isRated);
  const used = chosen(groups);
  const single = used.filter((group) => usable(group).reduce((sum, card) => sum + weight(card), 0) === 1).length;
  const state = cards.length === 0 ? 'empty' : rated.length === 0 ? 'unrated' : used.length === 0 ? 'equal' : 'ready';
  return {
    state,
    rated: cards.filter((card) => card.reward !== undefined).length,
    of: cards.length,
    equal: rated.length - used.length,
    single,
    used: used.length,
  };
}

/** The mean reward of the responses, as the server will see it. */
export function meanReward(groups: Group[]): number {
  const cards = groups.flatMap(usable);
  const responses = cards.reduce((sum, card) => sum + weight(card), 0);
  return responses === 0 ? 0 : cards.reduce((sum, card) => sum + rewardOf(card) * weight(card), 0) / responses;
}
