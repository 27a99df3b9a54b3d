// One measure over revisions as a chart draws it: measured and smoothed line, band, marks; fewer points where there are many. Pure.
import { decimate } from './decimate';
import { smooth } from './smooth';

export interface Measured {
  x: readonly number[];
  y: readonly (number | null)[];
  low?: readonly (number | null)[];
  high?: readonly (number | null)[];
}
export interface Drawn {
  x: number[];
  raw: (number | null)[];
  smooth: (number | null)[];
  low: (number | null)[];
  high: (number | null)[];
}

/** More points than this are thinned: about two a pixel of a small chart. */
const BUCKETS = 400;

export function drawnOf(measured: Measured, weight: number, log: boolean): Drawn {
  // A logarithm has no place for zero.
  const fit = (values: readonly (number | null)[]) => (log ? values.map((value) => (value !== null && value > 0 ? value : null)) : values);
  const raw = fit(measured.y);
  const line = smooth(raw, weight);
  const kept = decimate(raw, BUCKETS);
  const take = <T>(values: readonly T[]) => kept.map((at) => values[at] as T);
  const none = kept.map(() => null);
  return {
    x: take(measured.x),
    raw: take(raw),
    smooth: weight > 0 ? take(line) : none,
    low: measured.low ? take(fit(measured.low)) : none,
    high: measured.high ? take(fit(measured.high)) : none,
  };
}

/** The range of x with a little room, also of one point. */
export function rangeOf(x: readonly number[]): [number, number] {
  const first = x[0] ?? 0;
  const last = x.at(-1) ?? 1;
  const room = Math.max(0.5, (last - first) * 0.02);
  return [first - room, last + room];
}
