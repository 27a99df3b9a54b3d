// What the page Teach works with: prompts' answers and their ratings. Knows neither the server nor the screen.
import type { Message, TrainResponse } from '../api/types';

/** One card: an answer that was sampled, possibly several times, or one written by hand. */
export interface Answer {
  id: string;
  text: string;
  reasoning: string;
  /** `mine`: written by hand. */
  source: 'model' | 'mine';
  /** Id of the model that said it, and the base model under that one. */
  model: string;
  base: string;
  /** One for each time it was sampled; none where it was written by hand. */
  responseIds: string[];
  /** Ended by the limit on tokens. */
  cut: boolean;
  done: boolean;
  /** −1..1; absent: not rated, which counts as 0. */
  reward?: number;
}

export interface Group {
  id: string;
  messages: Message[];
  answers: Answer[];
}

/** How answers are rated. The reward is the one truth; each way shows and sets it. */
export type Way = 'thumbs' | 'slider' | 'rank';

export interface Knobs {
  steps: number;
  learning_rate?: number;
  kl_coefficient?: number;
  objective?: 'tapered' | 'importance_sampling' | 'ppo' | 'sft';
}

/** The model that is trained. */
export interface Target {
  id: string;
  base: string;
  revision?: number;
}

/** How the log-probability of an answer as a whole moved. */
export interface Change {
  before: number;
  after: number;
}

export interface Outcome {
  model: string;
  /** Revisions before and after; equal where nothing changed. */
  from: number;
  to: number;
  response: TrainResponse;
  changes: Record<string, Change>;
  /** Groups that had nothing to compare and were not sent. */
  leftOut: number;
  /** The revision that undid it. */
  undoneAs?: number;
}

export interface Share {
  fit: number;
  of: number;
}

/** One time around: asked, rated, trained. */
export interface Round {
  /** The revision that answered. */
  revision: number;
  /** Share of answers that fit the rule, where there is one. */
  share?: Share;
  rewardMean: number;
  trained: boolean;
}
