// The sampling settings as text in fields: what may be typed, what it means, what the model has by itself. Pure.
import type { ChatSettings, ModelInfo } from '../api/types';

export type NumberName = 'temperature' | 'top_p' | 'top_k' | 'min_p' | 'max_tokens' | 'seed';

interface Limit {
  min: number;
  max: number;
  /** `min` itself is refused. */
  above?: boolean;
  whole?: boolean;
}

/** The contract's bounds. Seeds beyond 2^53 would be rounded by JSON in this page. */
export const LIMITS: Record<NumberName, Limit> = {
  temperature: { min: 0, max: 2 },
  top_p: { min: 0, max: 1, above: true },
  top_k: { min: 1, max: 4_294_967_295, whole: true },
  min_p: { min: 0, max: 1 },
  max_tokens: { min: 1, max: 4_294_967_295, whole: true },
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, whole: true },
};
export const NUMBERS = Object.keys(LIMITS) as NumberName[];
export const STOP_STRINGS = 4;
/** Of all stop strings together, as the server has it. */
const STOP_BYTES = 4096;

export type Problem = { kind: 'number' } | { kind: 'whole' } | { kind: 'range'; min: number; max: number; above: boolean } | { kind: 'stops'; most: number };

/** Reads a field; empty means the model's own. */
export function parseNumber(name: NumberName, text: string): { value?: number; problem?: Problem } {
  const trimmed = text.trim().replace(',', '.');
  if (trimmed === '') return {};
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed)) return { problem: { kind: 'number' } };
  const value = Number(trimmed);
  const limit = LIMITS[name];
  if (limit.whole && !Number.isInteger(value)) return { problem: { kind: 'whole' } };
  if (value < limit.min || value > limit.max || (limit.above && value === limit.min)) {
    return { problem: { kind: 'range', min: limit.min, max: limit.max, above: !!limit.above } };
  }
  return { value };
}

/** One stop string a line; `\n` and `\t` stand for what cannot be typed into a line. */
export function parseStops(text: string): { value?: string[]; problem?: Problem } {
  const stops = text.split('\n').filter((line) => line !== '').map(unescape);
  if (stops.length > STOP_STRINGS || new TextEncoder().encode(stops.join('')).length > STOP_BYTES) return { problem: { kind: 'stops', most: STOP_STRINGS } };
  return stops.length ? { value: stops } : {};
}

const unescape = (line: string) => line.replace(/\\([nt\\])/g, (_, sign: string) => ({ n: '\n', t: '\t' })[sign] ?? '\\');
const escape = (stop: string) => stop.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('\t', '\\t');

export const formatStops = (stops: readonly string[] | undefined) => (stops ?? []).map(escape).join('\n');

/** What the model does where nothing is set; undefined where that is "off" or chosen anew each time. */
export function ownValue(model: ModelInfo | undefined, name: NumberName): number | undefined {
  if (name === 'min_p' || name === 'seed') return undefined;
  return model?.[name];
}

/** How many settings differ from the model's own. */
export const countSet = (settings: ChatSettings, system: string) =>
  Object.values(settings).filter((value) => value !== undefined && !(Array.isArray(value) && value.length === 0)).length + (system.trim() ? 1 : 0);
