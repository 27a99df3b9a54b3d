import { describe, expect, it } from 'vitest';
import { safeNext } from './next';

describe('safeNext', () => {
  it.each(['/models', '/models/mine?tab=curves', '/reference#train', '/chat?model=tiger-nano'])('keeps %s', (path) => {
    expect(safeNext(path)).toBe(path);
  });

  it.each([
    null,
    '',
    'models',
    'https://evil.example',
    '//evil.example',
    '/\\evil.example',
    '\\/evil.example',
    '/\t/evil.example',
    '/\n/evil.example',
    '/.//evil.example',
    '/a/..//evil.example',
    'javascript:alert(1)',
    '/signin?next=/models',
    '/api/session',
    '/v1/models',
  ])('refuses %j', (path) => {
    expect(safeNext(path)).toBe('/chat');
  });
});
