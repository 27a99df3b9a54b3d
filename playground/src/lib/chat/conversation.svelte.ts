// One conversation: its tree, the answers that are being written, what is kept on the server. Lives on while another page is shown.
// Knows no component.
import { post, put, asApiError, isAbort, stream, type ApiError } from '../api/client';
import type { Chat, ChatDocument, ChatNode, ChatSettings, GenerateRequest, GenerateStop } from '../api/types';
import { findModel } from '../models.svelte';
import { t } from '../../text';
import { Flow, nextFrame, type Piece } from './flow';
import { requestOf, titleOf } from './request';
import { Saver, type SaveState } from './saver';
import { comparison, deepest, find, pathTo, remember, remove, type Seen, step } from './tree';

/** An answer that is being written. */
export interface Live {
  phase: 'waiting' | 'thinking' | 'writing';
  status?: string;
  progress?: number;
}

/** While an answer is written, what came is saved this often, ms. */
const SAVE_EVERY_MS = 3000;

export class Conversation {
  id = $state<string>();
  title = $state('');
  model = $state('');
  /** More models that answer each message. */
  others = $state<string[]>([]);
  system = $state('');
  settings = $state<ChatSettings>({});
  nodes = $state<ChatNode[]>([]);
  leaf = $state<string>();
  draft = $state('');
  live = $state<Record<string, Live>>({});
  /** Errors of this page's life; the stored ones are only text. */
  failures = $state.raw<Record<string, ApiError>>({});
  /** How long an answer was thought about, s. */
  thought = $state<Record<string, number>>({});
  /** In a comparison: the answer shown of a model, by `user message|model`. */
  picked = $state<Record<string, string>>({});
  save = $state.raw<SaveState>({ kind: 'saved' });
  /** When it was created on the server. */
  oncreated: (id: string) => void = () => {};
  onsaved: (chat: Chat) => void = () => {};

  readonly path = $derived(pathTo(this.nodes, this.leaf));
  readonly columns = $derived(comparison(this.nodes, this.leaf));
  readonly busy = $derived(Object.keys(this.live).length > 0);

  private readonly seen: Seen = new Map();
  private readonly controllers = new Map<string, AbortController>();
  private readonly flows = new Map<string, Flow>();
  private readonly saver: Saver;
  private timer?: ReturnType<typeof setInterval>;

  constructor(stored?: Chat) {
    this.saver = new Saver(
      {
        document: () => this.document(),
        create: (document, keepalive) => post<Chat>('/api/chats', document, { keepalive }),
        replace: (id, document, keepalive) => put<Chat>(`/api/chats/${id}`, document, { keepalive }),
        onstate: (state) => (this.save = state),
        onsaved: (chat) => {
          const created = this.id !== chat.id;
          this.id = chat.id;
          this.onsaved(chat);
          if (created) this.oncreated(chat.id);
        },
        later(run, ms) {
          const timer = setTimeout(run, ms);
          return () => clearTimeout(timer);
        },
      },
      stored?.id,
      stored?.version,
    );
    if (stored) this.take(stored);
  }

  /** Shows a stored version. */
  private take(stored: Chat): void {
    this.id = stored.id;
    this.title = stored.title;
    this.model = stored.model;
    this.system = stored.system;
    this.settings = stored.settings;
    this.nodes = stored.nodes;
    this.leaf = stored.leaf;
    remember(this.nodes, this.leaf, this.seen);
  }

  /** As it is stored: an answer that is being written counts as broken off, which it is if nothing more is saved. */
  document(): ChatDocument {
    for (const flow of this.flows.values()) flow.flush();
    const nodes = $state.snapshot(this.nodes).map((node) => (this.live[node.id] ? { ...node, interrupted: true } : node));
    return { title: this.title, model: this.model, system: this.system, settings: $state.snapshot(this.settings), nodes, leaf: this.leaf };
  }

  get unsaved(): boolean {
    return this.saver.unsaved;
  }

  /** Notes a change; a conversation without a message is not kept. */
  touch(): void {
    if (this.nodes.length || this.id) this.saver.touch();
  }

  flush = () => this.saver.flush();
  /** The page goes away. */
  leave(): void {
    if (this.busy) this.saver.touch();
    this.saver.leave();
  }

  /** It was deleted. */
  end(): void {
    this.saver.end();
    this.stop();
  }

  /** After a conflict: goes on as a conversation of its own. */
  keepAsCopy(): void {
    this.title = t.chat.save.copyTitle(this.title).slice(0, 200);
    this.saver.startAnew();
  }

  rename(title: string): void {
    this.title = title;
    this.touch();
  }

  /** The models that answer the next message. */
  get answering(): string[] {
    return [this.model, ...this.others];
  }

  /** Says something after what is shown. */
  send(text: string): void {
    this.ask(text, this.leaf);
  }

  /** Says it differently: a branch beside the old message. */
  edit(id: string, text: string): void {
    const node = find(this.nodes, id);
    if (node) this.ask(text, node.parent);
  }

  private ask(text: string, parent: string | undefined): void {
    const user: ChatNode = { id: newId(), parent, role: 'user', content: text, created: now() };
    if (!this.title) this.title = titleOf(text);
    this.nodes.push(user);
    this.answer(user.id);
  }

  /** Has the chosen models answer a message. */
  answer(user: string): void {
    const models = this.answering;
    const made = models.map((model) => this.add(user, model));
    this.show(models.length === 1 ? made[0] : user);
    for (const id of made) void this.run(id);
  }

  /** Another answer to the same message: by the model of the moment, in a comparison by the same one. */
  regenerate(id: string): void {
    const node = find(this.nodes, id);
    if (!node?.parent) return;
    const compared = this.leaf === node.parent;
    const model = compared ? (node.model ?? this.model) : this.model;
    const made = this.add(node.parent, model);
    if (compared) this.picked[`${node.parent}|${model}`] = made;
    else this.show(made);
    void this.run(made);
  }

  /** After a failure: in place where nothing came, else beside what came. */
  retry(id: string): void {
    const node = find(this.nodes, id);
    if (!node) return;
    if (node.content || node.reasoning) return this.regenerate(id);
    node.error = undefined;
    node.interrupted = undefined;
    this.forget(id);
    void this.run(id);
  }

  /** Goes on writing an answer that ended too early. */
  continue(id: string): void {
    const node = find(this.nodes, id);
    if (!node) return;
    Object.assign(node, { stop_reason: undefined, interrupted: undefined, error: undefined, response_id: undefined });
    this.forget(id);
    void this.run(id);
  }

  /** Ends a comparison with one of its answers. */
  keep(id: string): void {
    const node = find(this.nodes, id);
    if (!node) return;
    this.others = [];
    if (node.model) this.model = node.model;
    this.show(id);
  }

  /** Shows the branch at a leaf. */
  show(leaf: string | undefined): void {
    this.leaf = leaf;
    remember(this.nodes, leaf, this.seen);
    this.touch();
  }

  /** Shows a question's answers side by side again. */
  together(user: string): void {
    this.show(user);
  }

  /** Shows the sibling `by` further. */
  step(id: string, by: number): void {
    const leaf = step(this.nodes, id, by, this.seen);
    if (leaf) this.show(leaf);
  }

  /** Shows one of a model's answers in a comparison. */
  pick(user: string, model: string, id: string): void {
    this.picked[`${user}|${model}`] = id;
  }

  remove(id: string): void {
    const compared = this.columns?.some((column) => column.answers.some((node) => node.id === id));
    const left = remove(this.nodes, id, this.leaf, this.seen);
    const kept = new Set(left.nodes.map((node) => node.id));
    for (const [node, controller] of this.controllers) if (!kept.has(node)) controller.abort();
    this.nodes = left.nodes;
    // One answer left of a comparison is no comparison.
    this.show(compared && left.leaf && !this.columns ? deepest(left.nodes, left.leaf, this.seen) : left.leaf);
  }

  /** Stops every answer that is being written; what came stays. */
  stop(): void {
    for (const controller of this.controllers.values()) controller.abort();
  }

  /** What would be sent for `leaf`, or for a message that is being written. */
  request(draft: string): GenerateRequest {
    const path = this.path.at(-1)?.role === 'assistant' && !draft ? this.path.slice(0, -1) : this.path;
    const more: ChatNode[] = draft || path.length === 0 ? [{ id: '', role: 'user', content: draft || t.chat.start.nano[0]!, created: 0 }] : [];
    return requestOf(this.model, this.system, $state.snapshot(this.settings), [...path, ...more]);
  }

  private add(user: string, model: string): string {
    const id = newId();
    this.nodes.push({ id, parent: user, role: 'assistant', content: '', model, created: now() });
    return id;
  }

  private forget(id: string): void {
    const { [id]: _, ...rest } = this.failures;
    this.failures = rest;
  }

  private async run(id: string): Promise<void> {
    const node = find(this.nodes, id);
    if (!node) return;
    const path = pathTo(this.nodes, id);
    const request = requestOf(node.model ?? this.model, this.system, $state.snapshot(this.settings), path);
    const controller = new AbortController();
    const before = node.content;
    const used = node.usage?.output_tokens ?? 0;
    this.controllers.set(id, controller);
    this.live[id] = { phase: 'waiting' };
    const flow = new Flow((pieces) => this.grow(node, pieces), nextFrame, matchMedia('(prefers-reduced-motion: reduce)').matches);
    this.flows.set(id, flow);
    this.timer ??= setInterval(() => this.touch(), SAVE_EVERY_MS);
    this.touch();
    const started = performance.now();
    let thinking = 0;
    try {
      for await (const chunk of stream<GenerateStop>('/v1/generate_response', request, { signal: controller.signal })) {
        const live = this.live[id]!;
        if (chunk.type === 'info') Object.assign(live, { status: chunk.message, progress: chunk.progress });
        else if (chunk.type === 'delta') {
          if (live.phase === 'waiting' && !before) node.first_token_s = seconds(started);
          if (chunk.reasoning) {
            thinking ||= performance.now();
            live.phase = 'thinking';
            flow.push('reasoning', chunk.reasoning);
          }
          if (chunk.delta) {
            if (thinking && live.phase === 'thinking') this.thought[id] = seconds(thinking);
            live.phase = 'writing';
            flow.push('content', chunk.delta);
          }
        } else if (chunk.type === 'stop') {
          await Promise.race([flow.drain(), aborted(controller.signal)]);
          node.stop_reason = chunk.stop_reason;
          node.revision = chunk.revision;
          node.usage = { ...chunk.usage, output_tokens: chunk.usage.output_tokens + used, duration: chunk.usage.duration + (node.usage?.duration ?? 0) };
          if (!before) node.response_id = chunk.response_id;
        }
      }
    } catch (thrown) {
      flow.flush();
      node.revision ??= findModel(node.model)?.revision;
      if (!isAbort(thrown)) this.fail(node, asApiError(thrown));
    } finally {
      flow.flush();
      if (thinking && this.thought[id] === undefined) this.thought[id] = seconds(thinking);
      this.flows.delete(id);
      this.controllers.delete(id);
      delete this.live[id];
      if (!this.controllers.size) {
        clearInterval(this.timer);
        this.timer = undefined;
      }
      this.touch();
    }
  }

  private grow(node: ChatNode, pieces: readonly Piece[]): void {
    for (const piece of pieces) {
      if (piece.kind === 'content') node.content += piece.text;
      else node.reasoning = (node.reasoning ?? '') + piece.text;
    }
  }

  private fail(node: ChatNode, error: ApiError): void {
    this.failures = { ...this.failures, [node.id]: error };
    node.interrupted = error.code === 'interrupted' || undefined;
    node.error = error.requestId ? `${error.message} (${t.requestId}: ${error.requestId})` : error.message;
  }
}

const now = () => Date.now() / 1000;
const seconds = (since: number) => Math.round(performance.now() - since) / 1000;

const aborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve());
  });

/** `crypto.randomUUID` is missing where the page comes over plain HTTP from another machine. */
function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
