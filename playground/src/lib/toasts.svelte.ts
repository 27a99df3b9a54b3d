// Short messages at the edge of the page.
import { asApiError } from './api/client';

export interface Toast {
  id: number;
  kind: 'info' | 'good' | 'bad';
  text: string;
  requestId?: string;
}

/** Time that a message stays, ms; errors stay until closed. */
const STAY_MS = 5000;

export const toasts = $state<Toast[]>([]);
let next = 1;

export function toast(text: string, kind: Toast['kind'] = 'info', requestId?: string): void {
  const id = next++;
  toasts.push({ id, kind, text, requestId });
  if (kind !== 'bad') setTimeout(() => dismiss(id), STAY_MS);
}

/** Shows something thrown. */
export function toastError(thrown: unknown): void {
  const error = asApiError(thrown);
  toast(error.message, 'bad', error.requestId);
}

export function dismiss(id: number): void {
  const at = toasts.findIndex((one) => one.id === id);
  if (at >= 0) toasts.splice(at, 1);
}
