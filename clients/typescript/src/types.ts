// The contract's types: from the OpenAPI document (`schema.ts` is generated), with what streams add. Fields keep the names of the wire.
import type { FileContent } from './form.js';
import type * as wire from './schema.js';

export type {
  DeleteModelResponse,
  EvaluatedAnswer,
  EvaluatedAnswers,
  EvaluatedResponse,
  EvaluatePrompt,
  EvaluateResponse,
  EvaluateResult,
  EvaluateUsage,
  GenerateResponse,
  Message,
  ModelInfo,
  ModelStatus,
  Objective,
  RatioSummary,
  ResponseFormat,
  ResponseMetrics,
  RewardSummary,
  Role,
  Sample,
  StepMetrics,
  StopReason,
  StreamedSample,
  TokenLogprob,
  TopToken,
  TrainedResponse,
  TrainGroup,
  TrainResponse,
  TrainUsage,
  Usage,
} from './schema.js';

/** One revision of a model; `metrics` is the answer of the training that made it, as it was stored. */
export type RevisionInfo = Omit<wire.RevisionInfo, 'metrics'> & { metrics?: Partial<wire.TrainResponse> | null };

/** Fields of `generate`. */
export type GenerateParams = Omit<wire.GenerateRequest, 'stream'>;
/** Fields of `train`: `messages` and `responses`, or `batch`. */
export type TrainParams = Omit<wire.TrainRequest, 'stream'>;
/** Fields of `models.create`. */
export type CreateModelParams = Omit<wire.CreateModelRequest, 'stream'>;
/** Fields of `models.importAdapter`; `parent_model` is the base that the adapter was trained on. */
export type ImportAdapterParams = Omit<wire.ImportForm, 'adapter_config' | 'adapter_model'> & {
  adapter_config: FileContent;
  adapter_model: FileContent;
};
/** Fields of `models.update`. */
export type UpdateModelParams = wire.PatchModelRequest;
/** Fields of `models.evaluate`. */
export type EvaluateParams = Omit<wire.EvaluateRequest, 'stream'>;
/** The adapter's two files, as PEFT reads them. */
export type AdapterFile = 'adapter_model.safetensors' | 'adapter_config.json';

/** Something loads or waits in line. */
export type InfoChunk = wire.InfoChunk & { type: 'info' };
/** A piece of text (`delta`) or of thinking (`reasoning`) of response `index`. */
export type DeltaChunk = wire.DeltaChunk & { type: 'delta' };
/** A training or an evaluation goes on; `metrics` is empty within a step and in an evaluation. */
export type ProgressChunk = Omit<wire.ProgressChunk, 'metrics'> & { metrics: Partial<wire.StepMetrics>; type: 'progress' };
/** End of a generated text. */
export type GenerateStop = wire.GenerateStop & { type: 'stop' };

export type GenerateChunk = InfoChunk | DeltaChunk | GenerateStop;
export type TrainChunk = InfoChunk | ProgressChunk | (wire.TrainStop & { type: 'stop' });
export type EvaluateChunk = InfoChunk | ProgressChunk | (wire.EvaluateStop & { type: 'stop' });
export type CreateChunk = InfoChunk | (wire.CreateStop & { type: 'stop' });
