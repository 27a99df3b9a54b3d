// All revisions of one model, kept up to date: asks for the model now and then, and for revisions only when there are new ones. Knows no page.
import { get } from '../api/client';
import type { ModelInfo, RevisionInfo } from '../api/types';

const PAGE = 1000;
/** Asked this often while it trains, or just changed; and otherwise. */
const SOON_MS = 2000;
const CALM_MS = 10_000;
/** A model that just changed is likely to change again. */
const LIVELY_MS = 60_000;

export class Feed {
  model = $state.raw<ModelInfo>();
  /** Newest first. */
  revisions = $state.raw<RevisionInfo[]>([]);
  loaded = $state(false);
  failed = $state.raw<unknown>();
  private timer?: ReturnType<typeof setTimeout>;
  private livelyUntil = 0;
  private stopped = false;
  private turn = 0;

  constructor(
    readonly id: string,
    /** Called with every newer state of the model. */
    private readonly onchange: (model: ModelInfo) => void = () => {},
  ) {}

  /** Begins to load and to watch; returns what ends it. */
  start(): () => void {
    const look = () => {
      if (!document.hidden) void this.refresh();
    };
    document.addEventListener('visibilitychange', look);
    void this.refresh();
    return () => {
      this.stopped = true;
      clearTimeout(this.timer);
      document.removeEventListener('visibilitychange', look);
    };
  }

  /** Looks now. */
  async refresh(): Promise<void> {
    clearTimeout(this.timer);
    const turn = ++this.turn;
    try {
      const model = await get<ModelInfo>(`/v1/models/${encodeURIComponent(this.id)}`);
      if (this.stopped || turn !== this.turn) return;
      const before = this.model;
      const changed = this.revisions[0]?.revision !== model.revision;
      if (before && changed) this.livelyUntil = Date.now() + LIVELY_MS;
      if (!model.read_only && (changed || !this.loaded)) {
        const revisions = await this.newer(model);
        if (this.stopped || turn !== this.turn) return;
        this.revisions = revisions;
      }
      this.model = model;
      this.loaded = true;
      this.failed = undefined;
      if (before && JSON.stringify(before) !== JSON.stringify(model)) this.onchange(model);
    } catch (thrown) {
      if (this.stopped || turn !== this.turn) return;
      this.failed = thrown;
    }
    this.plan();
  }

  /** Takes the model as an answer to a change has it; what was asked before the change is not looked at any more. */
  take(model: ModelInfo): void {
    this.turn++;
    clearTimeout(this.timer);
    this.model = model;
    this.plan();
  }

  private plan(): void {
    const soon = this.model?.status === 'training' || this.model?.status === 'loading' || Date.now() < this.livelyUntil;
    // A hidden page looks again when it is shown.
    this.timer = setTimeout(() => !document.hidden && void this.refresh(), soon ? SOON_MS : CALM_MS);
  }

  /** What is known with what is new in front; pages back until both meet. */
  private async newer(model: ModelInfo): Promise<RevisionInfo[]> {
    const known = this.revisions;
    const last = known[0]?.revision ?? -1;
    const missing = Math.max(1, (model.revision ?? 0) - last);
    let fresh: RevisionInfo[] = [];
    let before: number | undefined;
    for (;;) {
      const limit = Math.min(PAGE, missing + 1);
      const path = `/v1/models/${encodeURIComponent(this.id)}/revisions?limit=${limit}${before === undefined ? '' : `&before=${before}`}`;
      const page = await get<RevisionInfo[]>(path);
      fresh = [...fresh, ...page.filter((one) => one.revision > last)];
      const lowest = page.at(-1)?.revision ?? 0;
      if (page.length === 0 || lowest === 0 || lowest <= last) break;
      before = lowest;
    }
    return [...fresh, ...known];
  }
}
