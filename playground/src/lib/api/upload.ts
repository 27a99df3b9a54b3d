// Sends a form and tells how much of it is sent, which `fetch` cannot. Knows no page.
import { t } from '../../text';
import { ApiError, failureOf } from './client';

export interface UploadOptions {
  signal?: AbortSignal;
  /** Bytes sent and bytes in all, the form's own among them. */
  onprogress?: (sent: number, all: number) => void;
}

/** One POST with a JSON answer. Throws ApiErrors, and an AbortError where the signal ended it. */
export function upload<T>(path: string, form: FormData, { signal, onprogress }: UploadOptions = {}): Promise<T> {
  return new Promise((resolve, reject) => {
    const stopped = () => new DOMException('The upload was stopped.', 'AbortError');
    if (signal?.aborted) return reject(stopped());
    const request = new XMLHttpRequest();
    const stop = () => request.abort();
    signal?.addEventListener('abort', stop, { once: true });
    const end = (how: () => void) => {
      signal?.removeEventListener('abort', stop);
      how();
    };
    request.open('POST', path);
    request.setRequestHeader('x-tiger-csrf', '1');
    request.upload.onprogress = (event) => event.lengthComputable && onprogress?.(event.loaded, event.total);
    request.onload = () => end(() => answered<T>(request, resolve, reject));
    request.onerror = () => end(() => reject(new ApiError(0, { type: 'network', code: 'unreachable', message: t.importing.cut })));
    request.onabort = () => end(() => reject(stopped()));
    request.send(form);
  });
}

function answered<T>(request: XMLHttpRequest, resolve: (value: T) => void, reject: (error: ApiError) => void): void {
  const { status, responseText } = request;
  if (status < 200 || status > 299) return reject(failureOf(status, responseText, (name) => request.getResponseHeader(name)));
  try {
    resolve(JSON.parse(responseText) as T);
  } catch {
    reject(failureOf(status, '', (name) => request.getResponseHeader(name)));
  }
}
