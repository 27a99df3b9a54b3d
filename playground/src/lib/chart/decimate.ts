// Which points of a long series have to be drawn so that it looks the same. Pure; knows no chart.

/**
 * Indices to keep, ascending: the first and the last, and of each of `buckets` equal parts the lowest and the highest value,
 * so that no spike is lost. Points in `always` (such as rolled-back revisions) are kept too.
 */
export function decimate(values: readonly (number | null)[], buckets: number, always: Iterable<number> = []): number[] {
  const length = values.length;
  if (length <= buckets * 2) return Array.from({ length }, (_, at) => at);
  const kept = new Set<number>([0, length - 1]);
  for (const at of always) if (at >= 0 && at < length) kept.add(at);
  for (let bucket = 0; bucket < buckets; bucket++) {
    const from = Math.floor((bucket * length) / buckets);
    const to = Math.floor(((bucket + 1) * length) / buckets);
    let low = -1;
    let high = -1;
    for (let at = from; at < to; at++) {
      const value = values[at];
      if (value === null || value === undefined) continue;
      if (low < 0 || value < (values[low] as number)) low = at;
      if (high < 0 || value > (values[high] as number)) high = at;
    }
    if (low >= 0) kept.add(low).add(high);
  }
  return [...kept].sort((a, b) => a - b);
}

/** Index of the value of an ascending array that is nearest to `wanted`; -1 of an empty one. */
export function nearest(ascending: readonly number[], wanted: number): number {
  let low = 0;
  let high = ascending.length - 1;
  if (high < 0) return -1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ascending[middle] as number) < wanted) low = middle + 1;
    else high = middle;
  }
  const before = low - 1;
  if (before >= 0 && wanted - (ascending[before] as number) <= (ascending[low] as number) - wanted) return before;
  return low;
}
