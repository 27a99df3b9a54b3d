// Turns the server's OpenAPI document into what the page lists: endpoints, and fields with their types in words. Pure; knows no page.

export interface Schema {
  $ref?: string;
  type?: string | string[];
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  oneOf?: Schema[];
  anyOf?: Schema[];
  allOf?: Schema[];
  enum?: unknown[];
  default?: unknown;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  additionalProperties?: boolean | Schema;
}

interface Content {
  [media: string]: { schema?: Schema };
}

export interface Operation {
  tags?: string[];
  summary?: string;
  description?: string;
  parameters?: { name: string; in: string; description?: string; required?: boolean; schema?: Schema }[];
  requestBody?: { content?: Content };
  responses?: Record<string, { description?: string; content?: Content }>;
  security?: unknown[];
}

export interface OpenApi {
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components?: { schemas?: Record<string, Schema> };
}

export interface Field {
  name: string;
  /** In words: `array of object`. */
  type: string;
  required: boolean;
  /** Such as `0 to 2`. */
  limits?: string;
  default?: string;
  description: string;
  /** The only values. */
  values: string[];
  /** What is inside. */
  fields: Field[];
  /** One of these shapes. */
  variants: Variant[];
}

export interface Variant {
  description: string;
  type: string;
  fields: Field[];
}

export interface Answer {
  status: string;
  description: string;
  good: boolean;
  media: string[];
  shape?: Shape;
}

export interface Endpoint {
  /** For the address: `post-v1-train`. */
  id: string;
  method: string;
  path: string;
  summary: string;
  description: string;
  /** Whether a key is needed. */
  key: boolean;
  parameters: (Field & { where: string })[];
  body: Field[];
  answers: Answer[];
}

interface Shape {
  type: string;
  values: string[];
  fields: Field[];
  variants: Variant[];
}

/** Fields that come before others, in this order. */
const FIRST = 'id name model description parent_model revision updated message role content prompts messages responses batch stream type code'.split(' ');
FIRST.push('temperature', 'top_p', 'top_k', 'min_p', 'max_tokens', 'stop', 'seed', 'n', 'learning_rate', 'steps');
const rank = (name: string) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);

/** Deeper than any shape of the contract; ends what refers to itself. */
const DEPTH = 7;
const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

/** Rust's links to items are of no use to a reader: [`crate::limits::TOP_K`] becomes `TOP_K`. */
export function plain(text: string | undefined): string {
  return (text ?? '').replace(/\[`(?:[\w]+::)*(\w+)`\](?:\([^)]*\))?/g, '`$1`').trim();
}

export const endpointId = (method: string, path: string) =>
  `${method}-${path}`
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');

export class Reader {
  readonly #schemas: Record<string, Schema>;

  constructor(private readonly doc: OpenApi) {
    this.#schemas = doc.components?.schemas ?? {};
  }

  /** All endpoints, in the order of the document. */
  endpoints(): Endpoint[] {
    const all: Endpoint[] = [];
    for (const [path, operations] of Object.entries(this.doc.paths)) {
      for (const method of METHODS) {
        const operation = operations[method];
        if (operation) all.push(this.#endpoint(method, path, operation));
      }
    }
    return all;
  }

  #endpoint(method: string, path: string, operation: Operation): Endpoint {
    const body = operation.requestBody?.content?.['application/json']?.schema;
    return {
      id: endpointId(method, path),
      method: method.toUpperCase(),
      path,
      summary: plain(operation.summary),
      description: plain(operation.description),
      key: (operation.security ?? []).length > 0,
      parameters: (operation.parameters ?? []).map((one) => ({
        ...this.#field(one.name, { ...one.schema, description: one.description }, one.required ?? false, 0),
        where: one.in,
      })),
      body: body ? this.shape(body).fields : [],
      answers: Object.entries(operation.responses ?? {}).map(([status, answer]) => {
        const content = answer.content ?? {};
        const media = Object.keys(content);
        const good = status.startsWith('2');
        const schema = good ? content[media[0] ?? '']?.schema : undefined;
        return { status, description: plain(answer.description), good, media, shape: schema ? this.shape(schema) : undefined };
      }),
    };
  }

  #resolve(schema: Schema): Schema {
    let found = schema;
    for (let hops = 0; found.$ref && hops < DEPTH; hops++) {
      const { $ref, ...own } = found;
      // A description beside the reference is about this use of it.
      found = { ...this.#schemas[$ref.split('/').at(-1) ?? ''], ...own };
    }
    return found;
  }

  /** What a schema admits. */
  shape(schema: Schema, depth = 0): Shape {
    const found = this.#resolve(schema);
    const empty = { values: [], fields: [], variants: [] };
    if (depth > DEPTH) return { type: 'object', ...empty };
    if (found.allOf) return this.#all(found, depth);
    const variants = (found.oneOf ?? found.anyOf ?? []).filter((one) => this.#resolve(one).type !== 'null');
    if (variants.length > 0) return this.#oneOf(variants, depth);
    if (found.enum) {
      const values = found.enum.filter((value) => value !== null).map((value) => JSON.stringify(value));
      return { type: typeName(found, 'string'), ...empty, values };
    }
    if (found.items) {
      const item = this.shape(found.items, depth + 1);
      return { ...item, type: `array of ${item.type}` };
    }
    const properties = Object.entries(found.properties ?? {});
    if (properties.length > 0) {
      const required = new Set(found.required);
      const fields = properties.map(([name, one]) => this.#field(name, one, required.has(name), depth + 1));
      // What must be given comes first, then what is looked for most; the document has them in the order of the alphabet.
      fields.sort((a, b) => Number(b.required) - Number(a.required) || rank(a.name) - rank(b.name));
      return { type: 'object', ...empty, fields };
    }
    return { type: typeName(found, 'any'), ...empty };
  }

  #all(schema: Schema, depth: number): Shape {
    const shapes = (schema.allOf ?? []).map((one) => this.shape(one, depth + 1));
    return {
      type: 'object',
      values: [],
      fields: shapes.flatMap((one) => one.fields),
      variants: shapes.flatMap((one) => one.variants),
    };
  }

  #oneOf(variants: Schema[], depth: number): Shape {
    const only = variants.length === 1 ? variants[0] : undefined;
    if (only) return this.shape(only, depth);
    const shapes = variants.map((one) => ({ shape: this.shape(one, depth + 1), description: plain(this.#resolve(one).description) }));
    const objects = shapes.filter(({ shape }) => shape.fields.length > 0);
    const types = [...new Set(shapes.map(({ shape }) => shape.type))];
    return {
      type: types.join(' or '),
      values: shapes.flatMap(({ shape }) => shape.values),
      fields: objects.length === 1 ? (objects[0]?.shape.fields ?? []) : [],
      variants: objects.length > 1 ? objects.map(({ shape, description }) => ({ description, type: shape.type, fields: shape.fields })) : [],
    };
  }

  #field(name: string, schema: Schema, required: boolean, depth: number): Field {
    const found = this.#resolve(schema);
    const only = (found.oneOf ?? found.anyOf)?.filter((one) => one.type !== 'null');
    const description = plain(found.description ?? (only?.length === 1 && only[0] ? this.#resolve(only[0]).description : undefined));
    const standard = found.default === undefined || found.default === null ? undefined : JSON.stringify(found.default);
    return { name, required, limits: limits(found), default: standard, description, ...this.shape(schema, depth) };
  }
}

function typeName(schema: Schema, otherwise: string): string {
  const types = (Array.isArray(schema.type) ? schema.type : [schema.type]).filter((type) => type && type !== 'null');
  return types.join(' or ') || otherwise;
}

/** The bounds of a number, a text or an array, in words. */
export function limits(schema: Schema): string | undefined {
  const low = schema.minimum ?? schema.minLength ?? schema.minItems;
  const high = schema.maximum ?? schema.maxLength ?? schema.maxItems;
  const parts = [];
  if (schema.exclusiveMinimum !== undefined) parts.push(`> ${schema.exclusiveMinimum}`);
  else if (low !== undefined && high === undefined) parts.push(`≥ ${low}`);
  if (low !== undefined && high !== undefined) parts.push(`${low} to ${high}`);
  else if (high !== undefined) parts.push(`≤ ${high}`);
  if (schema.exclusiveMaximum !== undefined) parts.push(`< ${schema.exclusiveMaximum}`);
  return parts.join(', ') || undefined;
}
