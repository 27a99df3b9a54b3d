// Finding and ordering models. Pure.
import type { ModelInfo } from '../api/types';

export const ORDERS = ['newest', 'trained', 'name', 'revision', 'size'] as const;
export type Order = (typeof ORDERS)[number];

const compare: Record<Order, (a: ModelInfo, b: ModelInfo) => number> = {
  newest: (a, b) => (b.created ?? 0) - (a.created ?? 0),
  trained: (a, b) => (b.last_modified ?? 0) - (a.last_modified ?? 0) || (b.created ?? 0) - (a.created ?? 0),
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true, sensitivity: 'base' }),
  revision: (a, b) => (b.revision ?? 0) - (a.revision ?? 0),
  size: (a, b) => (b.size_bytes ?? 0) - (a.size_bytes ?? 0),
};

/** Models that have every word of `search` in name, id, description or parent. */
export function matching(list: readonly ModelInfo[], search: string): ModelInfo[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return list.filter((model) => {
    const text = `${model.name} ${model.id} ${model.description} ${model.parent_model ?? ''}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

export function ordered(list: readonly ModelInfo[], order: Order): ModelInfo[] {
  return [...list].sort(compare[order]);
}

/** Names of models made from this one. */
export const childrenOf = (model: ModelInfo, list: readonly ModelInfo[]) => list.filter((other) => other.parent_model === model.name && other.id !== model.id);
