// Streams: lines to chunks, chunks to the whole answer. A stream ends in exactly one `stop` or `error`; anything else is an interrupted one.
import { type ErrorBody, StreamInterruptedError, streamedError, UnexpectedAnswerError } from './errors.js';
import { Lines } from './lines.js';
import type { CreateChunk, DeltaChunk, EvaluateChunk, EvaluateResponse, GenerateChunk, GenerateResponse, GenerateStop } from './types.js';
import type { ModelInfo, Sample, StreamedSample, TrainChunk, TrainResponse } from './types.js';

type AnyChunk = GenerateChunk | TrainChunk | EvaluateChunk | CreateChunk;
type Stop<Chunk> = Extract<Chunk, { type: 'stop' }>;
type Finish<Chunk, Final> = (deltas: DeltaChunk[], stop: Stop<Chunk>) => Final;

// A newer server's other types are passed over.
const KNOWN = new Set(['info', 'delta', 'progress', 'stop']);

/** An open answer: its bytes, and what ends it early. */
export interface Source {
  bytes: AsyncIterable<Uint8Array>;
  /** Hangs up. */
  cancel: () => void;
}

/** Iterates over the chunks of an answer while it is made. Leaving the loop, or `close()`, stops the work on the server. */
export class Stream<Chunk extends AnyChunk, Final> implements AsyncIterable<Chunk> {
  private readonly deltas: DeltaChunk[] = [];
  private readonly chunks: AsyncGenerator<Chunk>;
  private ended: { final: Final } | undefined;

  constructor(
    private readonly source: Source,
    private readonly finish: Finish<Chunk, Final>,
  ) {
    this.chunks = this.read();
  }

  [Symbol.asyncIterator](): AsyncIterator<Chunk> {
    return this.chunks;
  }

  /** Reads to the end and gives the whole answer, the same as without streaming. */
  async final(): Promise<Final> {
    for await (const _ of this.chunks);
    if (!this.ended) throw new StreamInterruptedError('the stream was closed before its last chunk');
    return this.ended.final;
  }

  /** Hangs up. */
  close(): void {
    this.source.cancel();
    void this.chunks.return(undefined);
  }

  private async *read(): AsyncGenerator<Chunk> {
    const lines = new Lines();
    try {
      for await (const bytes of this.source.bytes) {
        for (const line of lines.push(bytes)) yield* this.take(parse(line));
      }
      for (const line of lines.finish()) {
        const last = parseLast(line);
        if (last) yield* this.take(last);
      }
    } catch (thrown) {
      // After the last chunk nothing is lost.
      if (!this.ended) throw thrown;
    } finally {
      this.source.cancel();
    }
    if (!this.ended) throw new StreamInterruptedError('the connection ended before the answer was complete; try again');
  }

  private *take(chunk: Line): Generator<Chunk> {
    if (this.ended) return;
    if (chunk.type === 'error') throw streamedError((chunk as { error?: ErrorBody }).error ?? {});
    if (!KNOWN.has(chunk.type)) return;
    if (chunk.type === 'delta') this.deltas.push(chunk as DeltaChunk);
    if (chunk.type === 'stop') this.ended = { final: this.finish(this.deltas, chunk as Stop<Chunk>) };
    yield chunk as Chunk;
  }
}

/** A text while it is made. */
export class GenerateStream extends Stream<GenerateChunk, GenerateResponse> {
  constructor(source: Source) {
    super(source, generated);
  }

  /** The pieces of the (first) response's text; joined they are its `content`. */
  get text(): AsyncIterable<string> {
    return this.pieces();
  }

  private async *pieces(): AsyncGenerator<string> {
    for await (const chunk of this) {
      if (chunk.type === 'delta' && chunk.delta && !chunk.index) yield chunk.delta;
    }
  }
}

export type TrainStream = Stream<TrainChunk, TrainResponse>;
export type EvaluateStream = Stream<EvaluateChunk, EvaluateResponse>;
export type CreateStream = Stream<CreateChunk, ModelInfo>;

export const trainStream = (source: Source): TrainStream => new Stream(source, (_, stop) => stop);
export const evaluateStream = (source: Source): EvaluateStream => new Stream(source, (_, stop) => stop);
export const createStream = (source: Source): CreateStream => new Stream(source, (_, stop) => stop);

type Line = { type: string };

function parse(line: string): Line {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Line) : { type: '' };
  } catch (cause) {
    throw new UnexpectedAnswerError('a line of the stream is not JSON; is the base URL right?', { cause });
  }
}

/** A last line without its end may be whole, or cut. */
function parseLast(line: string): Line | undefined {
  try {
    return parse(line);
  } catch {
    return undefined;
  }
}

function generated(deltas: DeltaChunk[], stop: GenerateStop): GenerateResponse {
  const { type: _, index: __, responses, ...rest } = stop;
  const ends: (StreamedSample | GenerateStop)[] = responses ?? [stop];
  const samples = ends.map((end, index) => sample(deltas.filter((delta) => (delta.index ?? 0) === index), end));
  const { content, logprobs, reasoning } = samples[0] as Sample;
  return {
    ...rest,
    message: { role: 'assistant', content },
    ...(logprobs && { logprobs }),
    ...(reasoning && { reasoning }),
    ...(responses && { responses: samples }),
  };
}

function sample(deltas: DeltaChunk[], end: StreamedSample | GenerateStop): Sample {
  const logprobs = deltas.flatMap((delta) => delta.logprobs ?? []);
  const reasoning = deltas.map((delta) => delta.reasoning ?? '').join('');
  return {
    content: deltas.map((delta) => delta.delta ?? '').join(''),
    stop_reason: end.stop_reason,
    response_id: end.response_id,
    ...(logprobs.length > 0 && { logprobs }),
    ...(reasoning && { reasoning }),
  };
}
