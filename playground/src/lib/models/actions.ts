// What is done to a model from more than one page. Knows no page.
import { asApiError, file, patch } from '../api/client';
import type { ModelInfo } from '../api/types';
import { loadModels } from '../models.svelte';
import { toast, toastError } from '../toasts.svelte';
import { t } from '../../text';
import { save } from './save';

export const pathOf = (model: { id: string }) => `/v1/models/${encodeURIComponent(model.id)}`;

/** Makes a model the one that pages begin with, or takes that back; the model as it is then, or nothing where that failed. */
export async function setDefault(model: ModelInfo, on: boolean): Promise<ModelInfo | undefined> {
  try {
    const now = await patch<ModelInfo>(pathOf(model), { default_model: on });
    await loadModels();
    toast(on ? t.models.said.madeDefault(model.name) : t.models.said.droppedDefault(model.name), 'good');
    return now;
  } catch (thrown) {
    toastError(asApiError(thrown));
    return undefined;
  }
}

export type AdapterFile = 'adapter_model.safetensors' | 'adapter_config.json';

/** Saves a file of the adapter in PEFT's form. Fetched, not linked: the server wants the page's header. */
export async function saveAdapter(model: ModelInfo, name: AdapterFile): Promise<void> {
  try {
    save(name, await file(`${pathOf(model)}/adapter/${name}`));
    toast(t.models.said.saved(name), 'good');
  } catch (thrown) {
    toastError(asApiError(thrown));
  }
}
