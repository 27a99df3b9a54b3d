// Numbers, sizes and times as people read them. Pure.
import { LOCALE } from '../text';

const whole = new Intl.NumberFormat(LOCALE);
const compact = new Intl.NumberFormat(LOCALE, { notation: 'compact', maximumFractionDigits: 1 });

/** 12,345. */
export const count = (value: number) => whole.format(value);

/** 12.3K. */
export const short = (value: number) => (Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value));

/** A measured number with about three digits: 0.0123, 1.23, 123, 1.2e-7. */
export function number(value: number | undefined | null): string {
  if (value === undefined || value === null || !Number.isFinite(value)) return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(1).replace('e+', 'e');
  if (size >= 100) return whole.format(Math.round(value));
  return Number(value.toPrecision(3)).toString();
}

/** 16.1 GB, in powers of 1000. */
export function bytes(value: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let at = 0;
  let size = value;
  while (size >= 999.5 && at < units.length - 1) {
    size /= 1000;
    at++;
  }
  return `${at === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[at]}`;
}

/** 45 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds: number): string {
  if (seconds < 0.9995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** 8.0 B parameters. */
export function parameters(value: number): string {
  if (value >= 1e9) return `${(value / 1e9).toFixed(1)} B`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  return count(value);
}

const dated = new Intl.DateTimeFormat(LOCALE, { dateStyle: 'medium', timeStyle: 'short' });
const relative = new Intl.RelativeTimeFormat(LOCALE, { numeric: 'auto' });

/** 28 Nov 2026, 14:20. */
export const dateTime = (unix: number) => dated.format(new Date(unix * 1000));

/** 3 minutes ago. */
export function ago(unix: number, now = Date.now() / 1000): string {
  const seconds = unix - now;
  const size = Math.abs(seconds);
  if (size < 45) return relative.format(0, 'second');
  if (size < 2700) return relative.format(Math.round(seconds / 60), 'minute');
  if (size < 79_200) return relative.format(Math.round(seconds / 3600), 'hour');
  if (size < 2_200_000) return relative.format(Math.round(seconds / 86_400), 'day');
  return dated.format(new Date(unix * 1000));
}
