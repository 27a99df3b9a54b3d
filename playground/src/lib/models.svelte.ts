// The list of models, shared by all pages and fetched again when something changed it.
import { get } from './api/client';
import type { ModelInfo } from './api/types';

export const models = $state<{ list: ModelInfo[]; loaded: boolean; failed?: unknown }>({ list: [], loaded: false });

let latest = 0;

/** Fetches the list; answers that were overtaken are dropped. */
export async function loadModels(): Promise<void> {
  const turn = ++latest;
  try {
    const list = await get<ModelInfo[]>('/v1/models');
    if (turn !== latest) return;
    models.list = list;
    models.loaded = true;
    models.failed = undefined;
  } catch (thrown) {
    if (turn === latest) models.failed = thrown;
  }
}

/** A model by id or name. */
export function findModel(name: string | null | undefined): ModelInfo | undefined {
  return models.list.find((model) => model.id === name || model.name === name);
}

/** The model to begin with: the account's default, else the first that is ready. */
export function defaultModel(): ModelInfo | undefined {
  return models.list.find((model) => model.default_model) ?? models.list.find((model) => model.status !== 'not_downloaded');
}
