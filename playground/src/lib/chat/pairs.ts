// Which model to compare with: the base beside one's own, one's own beside the base. Pure.
import type { ModelInfo } from '../api/types';

/** The best partner that is not yet used, or none. */
export function partnerOf(model: ModelInfo | undefined, all: readonly ModelInfo[], used: ReadonlySet<string>): ModelInfo | undefined {
  const free = all.filter((one) => !used.has(one.id) && one.status !== 'not_downloaded');
  if (!model) return free[0];
  // The base is told by its name.
  const baseOf = (one: ModelInfo) => all.find((base) => base.read_only && (base.name === one.base_model || base.id === one.base_model))?.id;
  const root = model.read_only ? model.id : baseOf(model);
  if (!model.read_only) {
    const base = free.find((one) => one.id === root);
    if (base) return base;
  }
  // The list has the newest of one's own first.
  return free.find((one) => !one.read_only && baseOf(one) === root) ?? free.find((one) => !one.read_only) ?? free[0];
}
