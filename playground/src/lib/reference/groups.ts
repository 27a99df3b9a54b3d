// In which groups and in which order the page shows the endpoints. Those that nobody put here come last: none is ever missing.
import { EXAMPLES } from './examples';
import type { Endpoint } from './openapi';

export type GroupName = 'generate' | 'models' | 'train' | 'keep' | 'health' | 'openai' | 'other' | 'page';

const ORDER: [GroupName, string[]][] = [
  ['generate', ['POST /v1/generate_response']],
  ['models', ['GET /v1/models', 'POST /v1/models', 'GET /v1/models/{id}', 'PATCH /v1/models/{id}']],
  ['train', ['POST /v1/train', 'POST /v1/models/{id}/evaluate', 'GET /v1/models/{id}/revisions', 'POST /v1/models/{id}/rollback']],
  ['keep', ['GET /v1/models/{id}/adapter/{file}', 'DELETE /v1/models/{id}']],
  ['health', ['GET /healthz', 'GET /readyz', 'GET /metrics']],
];

export interface EndpointGroup {
  name: GroupName;
  endpoints: Endpoint[];
}

export const keyOf = (endpoint: Pick<Endpoint, 'method' | 'path'>) => `${endpoint.method} ${endpoint.path}`;

/** The groups that have something. */
export function grouped(all: Endpoint[]): EndpointGroup[] {
  const left = new Map(all.map((endpoint) => [keyOf(endpoint), endpoint]));
  const take = (key: string) => {
    const found = left.get(key);
    left.delete(key);
    return found ? [found] : [];
  };
  const groups: EndpointGroup[] = ORDER.map(([name, keys]) => ({ name, endpoints: keys.flatMap(take) }));
  const rest = [...left.values()];
  groups.push({ name: 'openai', endpoints: rest.filter((endpoint) => endpoint.path.startsWith('/openai/')) });
  groups.push({ name: 'other', endpoints: rest.filter((endpoint) => !/^\/(api|openai)\//.test(endpoint.path)) });
  groups.push({ name: 'page', endpoints: rest.filter((endpoint) => endpoint.path.startsWith('/api/')) });
  return groups.filter((group) => group.endpoints.length > 0);
}

/** Whether every word of a search is somewhere in an endpoint: in its path, its words, or the names of its fields. */
export function fits(endpoint: Endpoint, search: string): boolean {
  const names = [...endpoint.body, ...endpoint.parameters].map((field) => field.name);
  const text = [keyOf(endpoint), endpoint.summary, endpoint.description, ...names].join(' ').toLowerCase();
  return search
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

/** All examples, in the order in which the page shows them. */
export const inOrder = () => ORDER.flatMap(([, keys]) => keys).flatMap((key) => EXAMPLES[key] ?? []);
