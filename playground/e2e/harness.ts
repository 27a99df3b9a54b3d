// A `tiger serve` in a temporary folder and a Chromium, for journeys through the real program.
//
//   const server = await Server.start();            // beforeAll: real binary, port 0, empty data folder
//   const browser = await openBrowser();
//   const visit = await server.visit(browser);      // a page signed in as the owner; `{ signedIn: false }` for a stranger
//   await visit.page.goto(server.url('/chat'));
//   …
//   await visit.close();                            // fails on console errors, CSP violations and requests that leave the origin
//   await browser.close(); await server.stop();     // afterAll
//
// The binary is TIGER_BIN, else the debug build. With E2E_DEV=1 the page comes from Vite's development server (sources, no build).
// It knows no page.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createSocket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { expect } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BINARY = process.env.TIGER_BIN ?? join(ROOT, 'target/debug/tiger');
/** Writes the checkpoint of `babble`: `cargo build -p tiger-testkit --example tiny`. */
const TINY = process.env.TINY_BIN ?? join(ROOT, 'target/debug/examples/tiny');
const START_MS = 60_000;

export const OWNER = { name: 'ada', password: 'correct horse battery' };

export function openBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
  });
}

async function freePort(): Promise<number> {
  return await new Promise((resolve, reject) => {
    const socket = createSocket();
    socket.on('error', reject);
    socket.listen(0, '127.0.0.1', () => {
      const address = socket.address();
      socket.close(() => (address && typeof address === 'object' ? resolve(address.port) : reject(new Error('no port'))));
    });
  });
}

interface Vite {
  close(): Promise<void>;
}

export interface ServerOptions {
  /** More arguments of `tiger serve`. */
  args?: string[];
  env?: Record<string, string>;
  /** Adds the base model `babble`: random bytes without end, thousands a second, in a context of 131,072 tokens. */
  babble?: boolean;
}

export class Server {
  readonly data = mkdtempSync(join(tmpdir(), 'tiger-e2e-'));
  readonly log: string[] = [];
  origin = '';
  /** Of the API, also when the page comes from elsewhere. */
  api = '';
  setupToken = '';
  private child?: ChildProcess;
  private vite?: Vite;
  private port = 0;
  private cookie = '';

  private constructor(private readonly options: ServerOptions) {}

  /** Starts on an empty data folder. */
  static async start(options: ServerOptions = {}): Promise<Server> {
    const server = new Server(options);
    if (options.babble) execFileSync(TINY, [join(server.data, 'babble'), '131072']);
    server.port = await freePort();
    await server.begin();
    if (process.env.E2E_DEV) {
      process.env.TIGER_URL = server.api;
      const { createServer } = await import('vite');
      const vite = await createServer({ root: join(ROOT, 'playground'), server: { port: 0, host: 'localhost' }, logLevel: 'error' });
      await vite.listen();
      server.vite = vite;
      server.origin = (vite.resolvedUrls?.local[0] ?? '').replace(/\/$/, '');
    }
    return server;
  }

  /** Starts the program, again on the same port and folder after `kill`. */
  async begin(): Promise<void> {
    const args = ['serve', '--port', String(this.port), '--data-dir', this.data, '--threads', '1', ...(this.options.args ?? [])];
    if (this.options.babble) args.push('--model-dir', join(this.data, 'babble'));
    const child = spawn(BINARY, args, { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...this.options.env } });
    this.child = child;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`tiger did not start:\n${this.log.join('\n')}`)), START_MS);
      child.on('error', reject);
      child.on('exit', (code) => reject(new Error(`tiger ended with ${code}:\n${this.log.join('\n')}`)));
      createInterface({ input: child.stderr }).on('line', (line) => {
        this.log.push(line);
        const token = /token=([\w-]{43})/.exec(line) ?? /"token": "([\w-]{43})"/.exec(line);
        if (token?.[1]) this.setupToken = token[1];
        if (line.includes('listening on')) clearTimeout(timer);
        // What follows the address is printed at once.
        if (line.includes('listening on')) setTimeout(resolve, 200);
      });
    });
    this.api = `http://localhost:${this.port}`;
    if (!this.vite) this.origin = this.api;
  }

  url(path: string): string {
    return this.origin + path;
  }

  /** Ends the program without a chance to drain. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.child;
    if (!child || child.exitCode !== null) return;
    child.removeAllListeners('exit');
    const ended = new Promise((resolve) => child.on('exit', resolve));
    child.kill(signal);
    await ended;
    this.child = undefined;
  }

  async stop(): Promise<void> {
    await this.vite?.close();
    await this.kill('SIGTERM');
    rmSync(this.data, { recursive: true, force: true });
  }

  /** A call as the page makes it, with the owner's session (the owner is made on first use). */
  async call<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    if (!this.cookie) await this.makeOwner();
    const response = await fetch(this.api + path, {
      method,
      headers: { 'x-tiger-csrf': '1', 'content-type': 'application/json', cookie: this.cookie },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text) as T;
  }

  private async makeOwner(): Promise<void> {
    const response = await fetch(`${this.api}/api/owner`, {
      method: 'POST',
      headers: { 'x-tiger-csrf': '1', 'content-type': 'application/json' },
      body: JSON.stringify({ token: this.setupToken, ...OWNER }),
    });
    if (response.status !== 201) throw new Error(`owner: ${response.status} ${await response.text()}`);
    this.cookie = (response.headers.get('set-cookie') ?? '').split(';')[0] ?? '';
  }

  /** A number of `/metrics`. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.api}/metrics`)).text();
    const line = text.split('\n').find((one) => one.startsWith(`${name} `));
    return Number(line?.split(' ')[1] ?? Number.NaN);
  }

  /** A browser context with a page, signed in as the owner unless told otherwise. */
  async visit(browser: Browser, options: BrowserContextOptions & { signedIn?: boolean } = {}): Promise<Visit> {
    const { signedIn = true, ...rest } = options;
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...rest });
    if (signedIn) {
      if (!this.cookie) await this.makeOwner();
      const [name, value] = this.cookie.split('=') as [string, string];
      await context.addCookies([{ name, value, url: this.origin, httpOnly: true, sameSite: 'Strict' }]);
    }
    return Visit.open(context, this.origin);
  }
}

/** A page whose console, content policy and requests are watched. */
export class Visit {
  readonly problems: string[] = [];
  private allowed: RegExp[] = [];

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    private readonly origin: string,
  ) {}

  static async open(context: BrowserContext, origin: string): Promise<Visit> {
    const visit = new Visit(context, await context.newPage(), origin);
    visit.watch();
    return visit;
  }

  /** Console errors that a test makes on purpose, such as `/status of 401/`: the browser logs every failed request. */
  allow(...patterns: RegExp[]): void {
    this.allowed.push(...patterns);
  }

  private watch(): void {
    this.page.on('console', (message) => {
      if (message.type() === 'error') this.problems.push(`console: ${message.text()} (${message.location().url})`);
    });
    this.page.on('pageerror', (error) => this.problems.push(`exception: ${error.stack ?? error.message}`));
    this.context.on('request', (request) => {
      const url = new URL(request.url());
      if (['http:', 'https:', 'ws:', 'wss:'].includes(url.protocol) && url.host !== new URL(this.origin).host) {
        this.problems.push(`left the origin: ${request.url()}`);
      }
    });
  }

  /** Fails where something went wrong unseen. */
  expectQuiet(): void {
    expect(this.problems.filter((problem) => !this.allowed.some((pattern) => pattern.test(problem)))).toEqual([]);
  }

  /** Checks that the page stayed quiet, and closes it. */
  async close(): Promise<void> {
    await this.context.close();
    this.expectQuiet();
  }

  /** Fails on anything that axe finds on the page as it is now. */
  async expectAccessible(what = ''): Promise<void> {
    const { default: axe } = await import('axe-core');
    // Through the protocol, not as a script of the page, whose policy would rightly refuse it.
    await this.page.evaluate(axe.source);
    const found = await this.page.evaluate(async () => {
      const run = (window as unknown as { axe: { run(): Promise<{ violations: { id: string; help: string; nodes: { html: string }[] }[] }> } }).axe;
      return (await run.run()).violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`);
    });
    expect(found, what).toEqual([]);
  }
}
