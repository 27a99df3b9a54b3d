// An adapter's two files as a form (RFC 7578), for all tries of a call. Does not know what is in them, nor how they are sent.
import { TigerCityError } from './errors.js';

/**
 * What a file is given as. A `Blob` (a page's `File`, `openAsBlob` of Node) and bytes can be sent again; an iterable, such as a
 * `ReadableStream` or what `adapterStream` gives, is read once, while it is sent. Browsers send no streams over HTTP/1: give them a `Blob`.
 */
export type FileContent = Blob | Uint8Array | ArrayBuffer | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>;

/** What `fetch` is given. */
export interface Body {
  body: BodyInit;
  headers: Record<string, string>;
  /** Of a body that is read while it is sent. */
  duplex?: 'half';
  /** Ends its reading: `fetch` of Node reads a stream on when the call was aborted. */
  release?: () => void;
}

export class Form {
  /** False: a file was read that cannot be read again. */
  unused = true;

  constructor(
    private readonly texts: Record<string, string>,
    private readonly files: Record<string, FileContent>,
    private readonly edge: string,
  ) {
    for (const [name, text] of Object.entries(texts)) {
      if (typeof text !== 'string') throw new TigerCityError(`\`${name}\` must be a string; it is of type ${typeof text}`);
    }
    for (const [name, content] of Object.entries(files)) {
      if (!isWhole(content) && !isStream(content)) {
        throw new TigerCityError(`\`${name}\` must be a Blob, bytes or a ReadableStream; it is of type ${typeof content}`);
      }
    }
  }

  /** The body, from its beginning. */
  body(): Body {
    if (!Object.values(this.files).every(isWhole)) {
      const headers = { 'content-type': `multipart/form-data; boundary=${this.edge}` };
      const pieces = this.pieces();
      // Before the first piece of a file this touches none.
      return { body: stream(pieces), headers, duplex: 'half', release: () => void pieces.return(undefined).catch(() => {}) };
    }
    const form = new FormData();
    for (const [name, text] of Object.entries(this.texts)) form.append(name, text);
    for (const [name, content] of Object.entries(this.files)) form.append(name, blob(content as Whole));
    // `fetch` knows the type.
    return { body: form, headers: {} };
  }

  private async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    const encoder = new TextEncoder();
    const head = (name: string) => encoder.encode(`--${this.edge}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n`);
    const end = encoder.encode('\r\n');
    for (const [name, text] of Object.entries(this.texts)) {
      yield head(name);
      yield encoder.encode(text);
      yield end;
    }
    for (const [name, content] of Object.entries(this.files)) {
      yield head(name);
      if (isStream(content)) {
        this.unused = false;
        yield* iterated(content);
      } else yield* iterated(blob(content).stream());
      yield end;
    }
    yield encoder.encode(`--${this.edge}--\r\n`);
  }
}

/** Nothing is read before it can be sent. */
function stream(pieces: AsyncGenerator<Uint8Array>): ReadableStream<Uint8Array> {
  const pull = async (out: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    const { done, value } = await pieces.next();
    if (done) out.close();
    else out.enqueue(value);
  };
  return new ReadableStream<Uint8Array>({ pull }, { highWaterMark: 0 });
}

type Whole = Blob | Uint8Array | ArrayBuffer;

function isWhole(content: FileContent): content is Whole {
  return content instanceof Blob || content instanceof ArrayBuffer || ArrayBuffer.isView(content);
}

function isStream(content: FileContent): content is ReadableStream<Uint8Array> | AsyncIterable<Uint8Array> {
  return typeof content === 'object' && content !== null && (content instanceof ReadableStream || Symbol.asyncIterator in content);
}

/** Bytes are not copied where they are a `Blob` already. */
function blob(content: Whole): Blob {
  return content instanceof Blob ? content : new Blob([content as BlobPart]);
}

/** Safari's streams are no iterables. */
async function* iterated(content: ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  if (Symbol.asyncIterator in content) {
    yield* content as AsyncIterable<Uint8Array>;
    return;
  }
  const reader = content.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel();
  }
}
