// The train request that the ratings make, and which card each of its responses belongs to. Pure.
import type { TrainedResponse, TrainGroup, TrainRequest } from '../api/types';
import { chosen, rewardOf, usable } from './ratings';
import type { Answer, Group, Knobs, Target } from './types';

export interface Built {
  request: TrainRequest;
  /** The card of each response, in the order of the answer's `responses`. */
  slots: string[];
}

/** Recorded tokens count for models of one base only; other answers go in as text. */
function responses(answer: Answer, target: Target): TrainedResponse[] {
  const reward = rewardOf(answer);
  if (answer.source === 'mine') return [{ content: answer.text.trim(), reward }];
  if (answer.base === target.base) return answer.responseIds.map((response_id) => ({ response_id, reward }));
  return answer.text ? answer.responseIds.map(() => ({ content: answer.text, reward })) : [];
}

export function buildTrain(groups: Group[], target: Target, knobs: Knobs): Built {
  const slots: string[] = [];
  const batch: TrainGroup[] = chosen(groups).map((group) => ({
    messages: group.messages,
    responses: usable(group).flatMap((answer) => {
      const made = responses(answer, target);
      slots.push(...made.map(() => answer.id));
      return made;
    }),
  }));
  const one = batch.length === 1 ? batch[0] : undefined;
  const request: TrainRequest = {
    model: target.id,
    ...(one ? { messages: one.messages, responses: one.responses } : { batch }),
    steps: knobs.steps,
    ...(knobs.learning_rate === undefined ? {} : { learning_rate: knobs.learning_rate }),
    ...(knobs.kl_coefficient === undefined ? {} : { kl_coefficient: knobs.kl_coefficient }),
    ...(knobs.objective === undefined ? {} : { objective: knobs.objective }),
    ...(target.revision === undefined ? {} : { if_revision: target.revision }),
  };
  return { request, slots };
}

/** The id that the server makes of a name, where it is free. */
export const idOf = (name: string) => name.trim().toLowerCase().replace(/[^a-z0-9._-]/g, '-');

/** `wanted`, with a number behind it where that is taken. */
export function freeName(wanted: string, taken: string[]): string {
  const names = new Set(taken.map((name) => name.toLowerCase()));
  let name = wanted;
  for (let at = 2; names.has(name.toLowerCase()); at++) name = `${wanted} ${at}`;
  return name;
}
