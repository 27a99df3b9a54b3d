// `npm run shots`: pictures of every page, to be looked at; the kept set lies in docs/playground.
import { defineConfig } from 'vitest/config';

export default defineConfig({ test: { include: ['e2e/shots.ts'], environment: 'node', testTimeout: 600_000, hookTimeout: 120_000 } });
