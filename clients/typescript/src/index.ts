// Client of a TigerCity server: generate, stream, and train models by rewards.
export { TigerCity, type ClientOptions, type TrainOptions } from './client.js';
export {
  APIAbortError,
  APIConnectionError,
  APIStatusError,
  APITimeoutError,
  AuthenticationError,
  BadRequestError,
  ConflictError,
  InternalServerError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
  StreamInterruptedError,
  TigerCityError,
  UnexpectedAnswerError,
  UnprocessableEntityError,
} from './errors.js';
export type { ErrorBody } from './errors.js';
export type { FileContent } from './form.js';
export { type AdapterOptions, type CallOptions, Models } from './models.js';
export { type CreateStream, type EvaluateStream, GenerateStream, Stream, type TrainStream } from './stream.js';
export type * from './types.js';
export { VERSION } from './version.js';
