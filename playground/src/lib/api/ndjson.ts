// Reads a stream of one JSON object a line from bytes that may be cut anywhere, in a character too. Knows no meaning of the objects.

/** Lines longer than this are refused: a server that never ends a line would otherwise fill the memory. 64 MiB. */
const LINE_CHARS = 64 * 1024 * 1024;

/** The complete lines of a byte stream; a last line without its end is given too. Cancelling the iteration cancels the stream. */
export async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      let start = 0;
      for (let end = rest.indexOf('\n', start); end >= 0; end = rest.indexOf('\n', start)) {
        const line = rest.slice(start, end).trim();
        start = end + 1;
        if (line) yield line;
      }
      rest = rest.slice(start);
      if (rest.length > LINE_CHARS) throw new Error('a line of the stream is too long');
      if (done) break;
    }
    const last = rest.trim();
    if (last) yield last;
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** The objects of an NDJSON stream. */
export async function* objects<T>(stream: ReadableStream<Uint8Array>): AsyncGenerator<T> {
  for await (const line of lines(stream)) yield JSON.parse(line) as T;
}
