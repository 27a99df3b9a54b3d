// How the page is built: hashed files without source maps, small enough to be embedded in the program; in development, calls go to a running server.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

const server = process.env.TIGER_URL ?? 'http://localhost:45678';
const proxied = ['/api', '/v1', '/metrics', '/openapi.json', '/healthz', '/readyz'];

export default defineConfig({
  plugins: [svelte()],
  // Vitest resolves Svelte's server build unless told that this is a browser.
  resolve: process.env.VITEST ? { conditions: ['browser'] } : {},
  // The licences of what is bundled go with it, at /assets/licenses.txt.
  build: { license: { fileName: 'assets/licenses.txt' }, target: 'es2022', sourcemap: false, modulePreload: { polyfill: false }, assetsInlineLimit: 0, chunkSizeWarningLimit: 300 },
  server: { proxy: Object.fromEntries(proxied.map((path) => [path, { target: server, changeOrigin: false }])) },
  test: { environment: 'jsdom', include: ['src/**/*.test.ts'] },
});
