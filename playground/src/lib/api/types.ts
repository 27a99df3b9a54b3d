// The contract as types, in the words of the server. `golden.test.ts` reads the same examples as the server's tests.

export interface ErrorBody {
  type: string;
  code: string;
  message: string;
  param?: string;
  request_id?: string;
}

export type Role = 'system' | 'user' | 'assistant';
export interface Message {
  role: Role;
  content: string;
}

export type ModelStatus = 'ready' | 'loading' | 'not_downloaded' | 'training';
export interface ModelInfo {
  name: string;
  id: string;
  description: string;
  read_only: boolean;
  parent_model?: string;
  revision?: number;
  last_modified?: number;
  default_model?: boolean;
  temperature: number;
  top_p: number;
  top_k?: number;
  max_tokens?: number;
  context_length?: number;
  base_model: string;
  rank?: number;
  alpha?: number;
  dropout?: number;
  learning_rate?: number;
  status: ModelStatus;
  parameters?: number;
  size_bytes?: number;
  created?: number;
}

export interface CreateModelRequest {
  name: string;
  description: string;
  parent_model: string;
  rank?: number;
  alpha?: number;
  dropout?: number;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  max_tokens?: number;
  learning_rate?: number;
  seed?: number;
}

/** What is left out stays; null takes a default back. */
export type PatchModelRequest = Partial<Pick<ModelInfo, 'description' | 'default_model'>> & {
  [field in 'temperature' | 'top_p' | 'top_k' | 'max_tokens' | 'learning_rate']?: number | null;
};

export interface RevisionInfo {
  revision: number;
  created: number;
  train_id?: string;
  rolled_back_to?: number;
  available: boolean;
  metrics?: Partial<TrainResponse>;
}

export type StopReason = 'end_turn' | 'max_tokens' | 'stop_sequence';
export interface Usage {
  duration: number;
  input_tokens: number;
  cached_tokens: number;
  output_tokens: number;
}
export interface TokenLogprob {
  token_id: number;
  token: string;
  logprob: number;
  top?: { token_id: number; token: string; logprob: number }[];
}

export interface GenerateRequest {
  model: string;
  messages: Message[];
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  max_tokens?: number;
  stop?: string[];
  seed?: number;
  n?: number;
  logprobs?: boolean;
}
export interface Sample {
  content: string;
  stop_reason: StopReason;
  response_id: string;
  logprobs?: TokenLogprob[];
  reasoning?: string;
}
export interface GenerateResponse {
  id: string;
  model: string;
  revision: number;
  message: Message;
  stop_reason: StopReason;
  response_id: string;
  usage: Usage;
  logprobs?: TokenLogprob[];
  reasoning?: string;
  responses?: Sample[];
}
export interface GenerateStop {
  type: 'stop';
  /** With `n` > 1: 0, the response that the fields below belong to. */
  index?: number;
  stop_reason: StopReason;
  usage: Usage;
  id: string;
  model: string;
  revision: number;
  response_id: string;
  responses?: { index: number; stop_reason: StopReason; response_id: string }[];
}

export interface TrainedResponse {
  content?: string;
  response_id?: string;
  reward: number;
}
export interface TrainGroup {
  messages: Message[];
  responses: TrainedResponse[];
}
export interface TrainRequest {
  model: string;
  messages?: Message[];
  responses?: TrainedResponse[];
  batch?: TrainGroup[];
  learning_rate?: number;
  steps?: number;
  target_kl?: number;
  kl_coefficient?: number;
  kl_limit?: number;
  objective?: 'tapered' | 'importance_sampling' | 'ppo' | 'sft';
  dry_run?: boolean;
  evaluate?: boolean;
  seed?: number;
  if_revision?: number;
}
export interface StepMetrics {
  loss: number;
  policy_loss: number;
  kl_loss: number;
  kl_parent: number;
  kl_sampler: number;
  entropy: number;
  frac_tapered: number;
  frac_capped: number;
  ratio: { mean: number; max: number };
  grad_norm: number;
  step_scale: number;
}
export interface ResponseMetrics {
  group: number;
  advantage: number;
  tokens: number;
  mode: 'recorded' | 'text';
  staleness: number;
  logprob_before: number;
  logprob_after?: number;
}
export interface TrainResponse extends StepMetrics {
  id: string;
  model: string;
  revision: number;
  updated: boolean;
  reason?: string;
  steps: number;
  kl_moved?: number;
  entropy_after?: number;
  reward: { mean: number; std: number; min: number; max: number };
  responses: ResponseMetrics[];
  learning_rate: number;
  trained_tokens: number;
  duration: number;
  warnings: string[];
  usage: { duration: number; input_tokens: number; trained_tokens: number };
}
export type TrainStop = TrainResponse & { type: 'stop'; stop_reason: StopReason };

export interface EvaluateRequest {
  prompts: { messages: Message[]; responses?: string[] }[];
  revision?: number;
  against?: 'parent' | number;
  samples?: number;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  max_tokens?: number;
  seed?: number;
}
export interface EvaluatedAnswer {
  content: string;
  reasoning?: string;
  stop_reason: StopReason;
  response_id: string;
  tokens: number;
  logprob: number;
  logprob_other: number;
}
export interface EvaluateResponse {
  id: string;
  model: string;
  revision: number;
  against: 'parent' | number;
  seed: number;
  results: {
    answers: { model: EvaluatedAnswer[]; against: EvaluatedAnswer[] };
    responses?: { content: string; tokens: number; logprob: number; logprob_against: number }[];
  }[];
  mean_logprob?: number;
  mean_logprob_against?: number;
  mean_tokens?: number;
  mean_tokens_against?: number;
  kl?: number;
  usage: { duration: number; input_tokens: number; cached_tokens: number; output_tokens: number; scored_tokens: number };
}
export type EvaluateStop = EvaluateResponse & { type: 'stop'; stop_reason: StopReason };

export interface InfoChunk {
  type: 'info';
  message: string;
  progress?: number;
  stage?: string;
}
export interface DeltaChunk {
  type: 'delta';
  delta?: string;
  reasoning?: string;
  index?: number;
  logprobs?: TokenLogprob[];
}
export interface ProgressChunk {
  type: 'progress';
  step: number;
  steps: number;
  metrics: Partial<StepMetrics>;
}
export interface ErrorChunk {
  type: 'error';
  error: ErrorBody;
}
export type StopChunk = GenerateStop | TrainStop | EvaluateStop | ({ type: 'stop' } & ModelInfo);
export type Chunk<S = StopChunk> = InfoChunk | DeltaChunk | ProgressChunk | ErrorChunk | (S & { type: 'stop' });

// The page's own routes.

export interface SessionInfo {
  signed_in: boolean;
  name?: string;
  owner: boolean;
  needs_owner: boolean;
  version?: string;
}
export interface AccountInfo {
  id: string;
  name: string;
  owner: boolean;
  created: number;
}
export interface InvitationInfo {
  id: string;
  created: number;
  expires: number;
}
export interface InvitationResponse {
  invitation: string;
  expires: number;
}
export interface ApiKeyInfo {
  id: string;
  name: string;
  prefix: string;
  created: number;
  last_used?: number;
}
export interface CreateKeyResponse extends ApiKeyInfo {
  key: string;
}
export interface UsageRow {
  day: string;
  key?: string;
  key_name?: string;
  model: string;
  kind: string;
  requests: number;
  input_tokens: number;
  output_tokens: number;
  trained_tokens: number;
  duration: number;
}
export interface ServerStatus {
  version: string;
  uptime_s: number;
  waiting: number;
  running: number;
  trainings: number;
  pages_used: number;
  pages_total: number;
  resident_bytes?: number;
  bases: { id: string; bytes: number }[];
  loading: string[];
  adapters: number;
  prompt_tokens: number;
  cached_tokens: number;
  sampled_tokens: number;
  trained_tokens: number;
}
export interface PullInfo {
  id: string;
  model: string;
  state: 'running' | 'checking' | 'done' | 'failed' | 'stopped';
  bytes: number;
  total_bytes: number;
  bytes_per_s: number;
  eta_s?: number;
  error?: string;
  started: number;
}

export interface ChatSettings {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  max_tokens?: number;
  stop?: string[];
  seed?: number;
}
export interface ChatNode {
  id: string;
  parent?: string;
  role: 'user' | 'assistant';
  content: string;
  reasoning?: string;
  model?: string;
  revision?: number;
  stop_reason?: StopReason;
  response_id?: string;
  created: number;
  usage?: Usage;
  first_token_s?: number;
  interrupted?: boolean;
  error?: string;
}
export interface ChatDocument {
  title: string;
  model: string;
  system: string;
  settings: ChatSettings;
  nodes: ChatNode[];
  leaf?: string;
}
export interface Chat extends ChatDocument {
  id: string;
  version: number;
  created: number;
  updated: number;
}
export interface ChatSummary {
  id: string;
  title: string;
  model: string;
  created: number;
  updated: number;
  messages: number;
  version: number;
  excerpt?: string;
}
