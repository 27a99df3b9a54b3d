// Downloads of base models: asks once a second while one runs, and loads the list of models again when one is done. Knows no page.
import { untrack } from 'svelte';
import { del, get, post } from '../api/client';
import type { PullInfo } from '../api/types';
import { loadModels } from '../models.svelte';

const EVERY_MS = 1000;

export const active = (pull: PullInfo) => pull.state === 'running' || pull.state === 'checking';

class Pulls {
  list = $state.raw<PullInfo[]>([]);
  private timer?: ReturnType<typeof setTimeout>;
  private watchers = 0;
  /** Failures and stops that the user closed. */
  private dismissed = $state.raw<ReadonlySet<string>>(new Set());

  /** Those to be shown: what runs, and what ended badly until it is closed. */
  get shown(): PullInfo[] {
    return this.list.filter((pull) => active(pull) || (pull.state !== 'done' && !this.dismissed.has(this.key(pull))));
  }

  /** The running download of a model, by its name or id. */
  of(model: { name: string; id: string }): PullInfo | undefined {
    return this.list.find((pull) => active(pull) && (pull.model === model.name || pull.id === model.id));
  }

  /** Watches while a page shows them; returns what ends it. */
  watch(): () => void {
    this.watchers++;
    // An effect that watches must not run again for each answer.
    untrack(() => void this.refresh());
    return () => {
      this.watchers--;
      if (this.watchers === 0) clearTimeout(this.timer);
    };
  }

  async refresh(): Promise<void> {
    clearTimeout(this.timer);
    const before = this.list.filter(active).map((pull) => pull.id);
    try {
      this.list = await get<PullInfo[]>('/api/pulls');
      if (this.list.some((pull) => pull.state === 'done' && before.includes(pull.id))) void loadModels();
    } catch {
      // The list of models says what is wrong with the server; progress goes on with the next answer.
    }
    if (this.watchers > 0 && this.list.some(active)) this.timer = setTimeout(() => void this.refresh(), EVERY_MS);
  }

  async begin(model: string): Promise<void> {
    await post<PullInfo>('/api/pulls', { model });
    await this.refresh();
  }

  async stop(pull: PullInfo): Promise<void> {
    await del<PullInfo>(`/api/pulls/${encodeURIComponent(pull.id)}`);
    await this.refresh();
  }

  dismiss(pull: PullInfo): void {
    this.dismissed = new Set([...this.dismissed, this.key(pull)]);
  }

  private key(pull: PullInfo): string {
    return `${pull.id} ${pull.started}`;
  }
}

export const pulls = new Pulls();
