// How large a private copy will be: its adapter's file, before it is made. Pure.
import type { ModelInfo } from '../api/types';

/** Bytes of a number in an adapter's file. */
const BYTES = 4;
/** Parameters of a base, and of its adapter for each rank: the built-in model and Llama 8B. Between them a power law holds well. */
const SMALL = { base: 3_475_712, perRank: 18_688 };
const LARGE = { base: 8_030_261_248, perRank: 2_621_440 };
const POWER = Math.log(LARGE.perRank / SMALL.perRank) / Math.log(LARGE.base / SMALL.base);

/** Bytes of an adapter of `rank` on `base`, exact where another copy of that base is known; undefined where nothing is known of it. */
export function adapterBytes(base: ModelInfo, rank: number, list: readonly ModelInfo[]): number | undefined {
  const sibling = list.find((model) => !model.read_only && model.base_model === base.base_model && model.rank && model.size_bytes);
  if (sibling?.rank && sibling.size_bytes) return (sibling.size_bytes / sibling.rank) * rank;
  if (!base.parameters) return undefined;
  return SMALL.perRank * (base.parameters / SMALL.base) ** POWER * rank * BYTES;
}
