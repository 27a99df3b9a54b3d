// Cards and groups for tests. Part of no page.
import type { Answer, Group } from './types';

let next = 0;

export const answer = (text: string, more: Partial<Answer> = {}): Answer => ({
  id: `a${next++}`,
  text,
  reasoning: '',
  source: 'model',
  model: 'mine',
  base: 'Tiger-Nano',
  responseIds: [`resp_${next}`],
  cut: false,
  done: true,
  ...more,
});

export const group = (...answers: Answer[]): Group => ({ id: `g${next++}`, messages: [{ role: 'user', content: 'Why?' }], answers });
