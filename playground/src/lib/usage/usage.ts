// Sums of the rows of use: totals, days without gaps, models, keys, CSV. Pure; knows no page.
import type { UsageRow } from '../api/types';

export interface Sum {
  requests: number;
  trainings: number;
  input: number;
  output: number;
  trained: number;
  duration: number;
}

const none = (): Sum => ({ requests: 0, trainings: 0, input: 0, output: 0, trained: 0, duration: 0 });

function add(sum: Sum, row: UsageRow): Sum {
  sum.requests += row.requests;
  if (row.kind === 'train') sum.trainings += row.requests;
  sum.input += row.input_tokens;
  sum.output += row.output_tokens;
  sum.trained += row.trained_tokens;
  sum.duration += row.duration;
  return sum;
}

export const total = (rows: UsageRow[]): Sum => rows.reduce(add, none());

export interface Group extends Sum {
  id: string;
  name: string;
}

/** Sums by what `of` says of a row, most requests first. */
export function groups(rows: UsageRow[], of: (row: UsageRow) => { id: string; name: string }): Group[] {
  const found = new Map<string, Group>();
  for (const row of rows) {
    const { id, name } = of(row);
    let group = found.get(id);
    if (!group) found.set(id, (group = { id, name, ...none() }));
    add(group, row);
  }
  return [...found.values()].sort((a, b) => b.requests - a.requests || a.name.localeCompare(b.name));
}

export const MEASURES = ['tokens', 'requests', 'time'] as const;
export type Measure = (typeof MEASURES)[number];
const KINDS = ['generate', 'train', 'evaluate'];

/** The parts that a day's bar is stacked of, from the bottom up. */
export const partsOf = (measure: Measure): string[] => (measure === 'tokens' ? ['input', 'output', 'trained'] : KINDS);

export interface Day {
  /** `2026-11-28`, UTC. */
  day: string;
  /** In the order of `partsOf`. */
  parts: number[];
  total: number;
}

const DAY_MS = 86_400_000;

export const today = (now = Date.now()) => new Date(now).toISOString().slice(0, 10);

/** Every day of the range, oldest first; those without a row are zero. */
export function byDay(rows: UsageRow[], measure: Measure, days: number, now = Date.now()): Day[] {
  const parts = partsOf(measure);
  const list: Day[] = [];
  for (let back = days - 1; back >= 0; back--) list.push({ day: today(now - back * DAY_MS), parts: parts.map(() => 0), total: 0 });
  const found = new Map(list.map((one) => [one.day, one]));
  for (const row of rows) {
    const day = found.get(row.day);
    if (!day) continue;
    const values = measure === 'tokens' ? [row.input_tokens, row.output_tokens, row.trained_tokens] : kindParts(row, measure);
    values.forEach((value, at) => {
      day.parts[at] = (day.parts[at] ?? 0) + value;
      day.total += value;
    });
  }
  return list;
}

function kindParts(row: UsageRow, measure: Measure): number[] {
  return KINDS.map((kind) => (kind === row.kind ? (measure === 'time' ? row.duration : row.requests) : 0));
}

/** About four round numbers from 0 to at least `max`. */
export function ticks(max: number, whole: boolean): number[] {
  if (!(max > 0)) return [0, 1];
  const rough = max / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
  if (whole) step = Math.max(1, Math.ceil(step));
  const list = [0];
  while ((list.at(-1) ?? 0) < max) list.push(list.length * step);
  return list;
}

/** A cell that no spreadsheet takes for a formula. */
function cell(value: string | number): string {
  if (typeof value === 'number') return String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** The rows as they came, for a spreadsheet. */
export function csv(rows: UsageRow[]): string {
  const head = ['day', 'key', 'key_name', 'model', 'kind', 'requests', 'input_tokens', 'output_tokens', 'trained_tokens', 'duration_s'];
  const lines = rows.map((row) => [
    row.day,
    row.key ?? '',
    row.key_name ?? '',
    row.model,
    row.kind,
    row.requests,
    row.input_tokens,
    row.output_tokens,
    row.trained_tokens,
    row.duration,
  ]);
  return [head, ...lines].map((line) => line.map(cell).join(',')).join('\r\n') + '\r\n';
}
