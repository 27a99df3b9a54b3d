// Uploads: progress, answers, errors and stops, over a request that does as it is told.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ApiError, isAbort } from './client';
import { upload } from './upload';

class Request {
  static last: Request;
  static sent: unknown[];
  upload: { onprogress?: (event: object) => void } = {};
  onload = () => {};
  onerror = () => {};
  onabort = () => {};
  status = 0;
  responseText = '';
  headers: Record<string, string> = {};
  constructor() {
    Request.last = this;
  }
  open = (method: string, path: string) => Request.sent.push(method, path);
  setRequestHeader = (name: string, value: string) => Request.sent.push(`${name}: ${value}`);
  getResponseHeader = (name: string) => this.headers[name] ?? null;
  send = (body: unknown) => Request.sent.push(body);
  abort = () => this.onabort();
  answer(status: number, text: string) {
    this.status = status;
    this.responseText = text;
    this.onload();
  }
}

beforeEach(() => {
  Request.sent = [];
  vi.stubGlobal('XMLHttpRequest', Request);
});
afterEach(() => vi.unstubAllGlobals());

test('an answer, with the progress before it', async () => {
  const form = new FormData();
  const seen: number[][] = [];
  const done = upload('/v1/adapters', form, { onprogress: (...progress) => seen.push(progress) });
  Request.last.upload.onprogress?.({ lengthComputable: true, loaded: 5, total: 10 });
  Request.last.upload.onprogress?.({ lengthComputable: false, loaded: 6, total: 0 });
  Request.last.answer(201, '{"id":"m"}');
  expect(await done).toEqual({ id: 'm' });
  expect(seen).toEqual([[5, 10]]);
  expect(Request.sent).toEqual(['POST', '/v1/adapters', 'x-tiger-csrf: 1', form]);
});

test('errors of the server, and of what is none', async () => {
  const refused = upload('/v1/adapters', new FormData());
  Request.last.answer(422, '{"error":{"type":"validation","code":"invalid_parameter","message":"no","param":"adapter_model","request_id":"req_1"}}');
  const error = await refused.catch((thrown: unknown) => thrown as ApiError);
  expect(error).toMatchObject({ status: 422, body: { param: 'adapter_model' }, requestId: 'req_1' });
  for (const [status, text] of [[502, '<html>'], [201, 'cut']] as const) {
    const odd = upload('/v1/adapters', new FormData());
    Request.last.headers = { 'x-request-id': 'req_2' };
    Request.last.answer(status, text);
    await expect(odd).rejects.toMatchObject({ status, requestId: 'req_2' });
  }
});

test('a connection that ends, and a stop', async () => {
  const cut = upload('/v1/adapters', new FormData());
  Request.last.onerror();
  await expect(cut).rejects.toMatchObject({ status: 0, code: 'unreachable' });
  const controller = new AbortController();
  const stopped = upload('/v1/adapters', new FormData(), { signal: controller.signal });
  controller.abort();
  expect(isAbort(await stopped.catch((thrown: unknown) => thrown))).toBe(true);
  const sent = Request.sent.length;
  expect(isAbort(await upload('/v1/adapters', new FormData(), { signal: controller.signal }).catch((thrown: unknown) => thrown))).toBe(true);
  expect(Request.sent).toHaveLength(sent);
});
