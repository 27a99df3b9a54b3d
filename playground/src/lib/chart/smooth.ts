// Smoothing of a series of measured numbers. Pure; knows no chart.

/**
 * Exponential moving average, corrected for its start, so that the first value is not pulled towards zero.
 * `weight` 0 leaves the values as they are, 0.99 is very smooth. Gaps (null) stay gaps and do not count.
 */
export function smooth(values: readonly (number | null)[], weight: number): (number | null)[] {
  if (weight <= 0) return [...values];
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return null;
    sum = sum * weight + value * (1 - weight);
    mass = mass * weight + (1 - weight);
    return sum / mass;
  });
}
