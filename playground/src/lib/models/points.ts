// A model's revisions as numbers over revisions: what curves, table and CSV show. Pure.
import type { RevisionInfo } from '../api/types';

export const MEASURES = ['reward', 'loss', 'kl', 'grad', 'entropy'] as const;
export type Measure = (typeof MEASURES)[number];

/** One revision; a measure is null where nothing was trained (as it was made, or rolled back). */
export interface Point extends Record<Measure, number | null> {
  revision: number;
  created: number;
  rewardMin: number | null;
  rewardMax: number | null;
  moved: number | null;
  tokens: number | null;
  trainId?: string;
  rolledBackTo?: number;
}

const measured = (value: number | undefined) => (value === undefined || !Number.isFinite(value) ? null : value);

/** Points, oldest first, of revisions in any order. */
export function pointsOf(revisions: readonly RevisionInfo[]): Point[] {
  return revisions
    .map((one): Point => {
      const metrics = one.metrics;
      return {
        revision: one.revision,
        created: one.created,
        reward: measured(metrics?.reward?.mean),
        rewardMin: measured(metrics?.reward?.min),
        rewardMax: measured(metrics?.reward?.max),
        loss: measured(metrics?.loss),
        kl: measured(metrics?.kl_parent),
        grad: measured(metrics?.grad_norm),
        entropy: measured(metrics?.entropy),
        moved: measured(metrics?.kl_moved),
        tokens: measured(metrics?.trained_tokens),
        trainId: one.train_id,
        rolledBackTo: one.rolled_back_to,
      };
    })
    .sort((a, b) => a.revision - b.revision);
}

/** Points with a training behind them. */
export const trained = (points: readonly Point[]) => points.filter((point) => MEASURES.some((measure) => point[measure] !== null));

const CSV_COLUMNS = {
  revision: (point: Point) => point.revision,
  time: (point: Point) => new Date(point.created * 1000).toISOString(),
  train_id: (point: Point) => point.trainId ?? '',
  rolled_back_to: (point: Point) => point.rolledBackTo ?? '',
  reward_mean: (point: Point) => point.reward ?? '',
  reward_min: (point: Point) => point.rewardMin ?? '',
  reward_max: (point: Point) => point.rewardMax ?? '',
  loss: (point: Point) => point.loss ?? '',
  kl_parent: (point: Point) => point.kl ?? '',
  grad_norm: (point: Point) => point.grad ?? '',
  entropy: (point: Point) => point.entropy ?? '',
  kl_moved: (point: Point) => point.moved ?? '',
  trained_tokens: (point: Point) => point.tokens ?? '',
};

/** A field as RFC 4180 wants it. */
function field(value: string | number): string {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** All points as CSV, one revision a line. */
export function csvOf(points: readonly Point[]): string {
  const columns = Object.values(CSV_COLUMNS);
  const lines = points.map((point) => columns.map((column) => field(column(point))).join(','));
  return [Object.keys(CSV_COLUMNS).join(','), ...lines, ''].join('\r\n');
}

/** A page of rows, newest first; `page` counts from 0 and is brought into range. */
export function pageOf<T>(newestFirst: readonly T[], page: number, size: number): { rows: T[]; page: number; pages: number } {
  const pages = Math.max(1, Math.ceil(newestFirst.length / size));
  const at = Math.min(Math.max(0, page), pages - 1);
  return { rows: newestFirst.slice(at * size, (at + 1) * size), page: at, pages };
}

/** The name before the colon of a warning, and its words. */
export function warningOf(warning: string): { name: string; text: string } {
  const at = warning.indexOf(': ');
  return at > 0 ? { name: warning.slice(0, at), text: warning.slice(at + 2) } : { name: warning, text: warning };
}
