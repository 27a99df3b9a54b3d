// The tree of a conversation: nodes with parents, of which one path from a root to a leaf is shown. Pure; knows no server and no page.
import type { ChatNode } from '../api/types';

/** The child that was last shown under a parent (`''` for the roots). */
export type Seen = Map<string, string>;

const keyOf = (parent: string | undefined) => parent ?? '';

export function find(nodes: readonly ChatNode[], id: string | undefined): ChatNode | undefined {
  return id === undefined ? undefined : nodes.find((node) => node.id === id);
}

/** Children of a node, or the roots, oldest first. */
export function childrenOf(nodes: readonly ChatNode[], parent: string | undefined): ChatNode[] {
  return nodes.filter((node) => node.parent === parent);
}

/** From the root to `leaf`; empty without one. */
export function pathTo(nodes: readonly ChatNode[], leaf: string | undefined): ChatNode[] {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const path: ChatNode[] = [];
  for (let node = leaf === undefined ? undefined : byId.get(leaf); node; node = node.parent === undefined ? undefined : byId.get(node.parent)) path.push(node);
  return path.reverse();
}

/** Notes what is shown, so that coming back to a branch finds it as it was left. */
export function remember(nodes: readonly ChatNode[], leaf: string | undefined, seen: Seen): void {
  for (const node of pathTo(nodes, leaf)) seen.set(keyOf(node.parent), node.id);
}

/** The end of the branch at `id` that was seen last; where none was seen, the newest child leads on. */
export function deepest(nodes: readonly ChatNode[], id: string, seen: Seen): string {
  let at = id;
  for (;;) {
    const children = childrenOf(nodes, at);
    if (children.length === 0 || undecided(nodes, at, seen)) return at;
    at = (children.find((child) => child.id === seen.get(at)) ?? children.at(-1)!).id;
  }
}

/** Whether a user message has answers of several models of which none was chosen yet. */
function undecided(nodes: readonly ChatNode[], id: string, seen: Seen): boolean {
  return !seen.has(id) && modelsUnder(nodes, id).length > 1;
}

/** The models that answered a user message, in order of their first answers. */
export function modelsUnder(nodes: readonly ChatNode[], user: string): string[] {
  return [...new Set(childrenOf(nodes, user).map((node) => node.model ?? ''))];
}

/** A node's alternatives, itself among them: children of the same parent in the same role. */
export function siblings(nodes: readonly ChatNode[], id: string): ChatNode[] {
  const node = find(nodes, id);
  return node ? nodes.filter((other) => other.parent === node.parent && other.role === node.role) : [];
}

/** The siblings of any node, looked through all nodes once. */
export function familiesOf(nodes: readonly ChatNode[]): (node: ChatNode) => ChatNode[] {
  const families = new Map<string, ChatNode[]>();
  const family = (node: ChatNode) => `${node.role} ${node.parent ?? ''}`;
  for (const node of nodes) {
    const all = families.get(family(node));
    if (all) all.push(node);
    else families.set(family(node), [node]);
  }
  return (node) => families.get(family(node)) ?? [];
}

/** The leaf after stepping to the sibling `by` further (−1: the one before), or undefined where there is none. */
export function step(nodes: readonly ChatNode[], id: string, by: number, seen: Seen): string | undefined {
  const all = siblings(nodes, id);
  const to = all[all.findIndex((node) => node.id === id) + by];
  return to && deepest(nodes, to.id, seen);
}

/** A node and everything below it. */
export function descendants(nodes: readonly ChatNode[], id: string): Set<string> {
  const found = new Set([id]);
  // Parents come before children, so one pass finds all.
  for (const node of nodes) if (node.parent !== undefined && found.has(node.parent)) found.add(node.id);
  return found;
}

/** Without a branch. What is shown next: the neighbouring sibling, else the parent. */
export function remove(nodes: readonly ChatNode[], id: string, leaf: string | undefined, seen: Seen): { nodes: ChatNode[]; leaf?: string } {
  const gone = descendants(nodes, id);
  const rest = nodes.filter((node) => !gone.has(node.id));
  for (const [parent, child] of seen) if (gone.has(child) || gone.has(parent)) seen.delete(parent);
  if (leaf === undefined || !gone.has(leaf)) return { nodes: rest, leaf };
  const all = siblings(nodes, id);
  const at = all.findIndex((node) => node.id === id);
  const next = all[at - 1] ?? all[at + 1];
  return { nodes: rest, leaf: next ? deepest(rest, next.id, seen) : find(nodes, id)?.parent };
}

export interface Column {
  model: string;
  /** This model's answers, oldest first. */
  answers: ChatNode[];
}

/** The answers to compare: where the shown path ends in a user message that several models answered. */
export function comparison(nodes: readonly ChatNode[], leaf: string | undefined): Column[] | undefined {
  const end = find(nodes, leaf);
  if (end?.role !== 'user') return undefined;
  const models = modelsUnder(nodes, end.id);
  if (models.length < 2) return undefined;
  const children = childrenOf(nodes, end.id);
  return models.map((model) => ({ model, answers: children.filter((node) => (node.model ?? '') === model) }));
}
