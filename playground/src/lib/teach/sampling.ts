// Puts the pieces of a stream of several responses together as answers. Pure.
import type { Chunk, GenerateStop } from '../api/types';
import type { Answer } from './types';

/** As many answers without a word yet. */
export function blank(count: number, ids: () => string, from: Pick<Answer, 'model' | 'base'>): Answer[] {
  return Array.from({ length: count }, () => ({
    id: ids(),
    text: '',
    reasoning: '',
    source: 'model' as const,
    ...from,
    responseIds: [],
    cut: false,
    done: false,
  }));
}

/** Adds a chunk to the answers that it belongs to. */
export function take(answers: Answer[], chunk: Chunk<GenerateStop>): void {
  if (chunk.type === 'delta') {
    const answer = answers[chunk.index ?? 0];
    if (!answer) return;
    answer.text += chunk.delta ?? '';
    answer.reasoning += chunk.reasoning ?? '';
  } else if (chunk.type === 'stop') {
    const ends = chunk.responses ?? [{ index: 0, stop_reason: chunk.stop_reason, response_id: chunk.response_id }];
    for (const end of ends) {
      const answer = answers[end.index];
      if (!answer) continue;
      answer.responseIds = [end.response_id];
      answer.cut = end.stop_reason === 'max_tokens';
      answer.done = true;
    }
  }
}
