// The journeys run one after the other: each has a server and a browser of its own, and the machine may have two cores.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['e2e/**/*.e2e.ts'],
    environment: 'node',
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // The machine may be busy with others: a journey waits longer than people would, and is broken when it fails twice.
    expect: { poll: { timeout: 10_000 } },
    retry: 1,
  },
});
