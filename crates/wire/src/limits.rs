//! The numbers of the contract. Limits that an operator sets (bodies, rates, queues) belong to the server.

/// Port of the server and of every client's default base URL.
pub const DEFAULT_PORT: u16 = 45678;
/// Most independent responses of one generate request.
pub const MAX_SAMPLES: u32 = 64;
/// Most stop strings of one generate request.
pub const MAX_STOP_STRINGS: usize = 4;
/// Highest temperature; above it text is noise whatever the model.
pub const MAX_TEMPERATURE: f64 = 2.0;
/// Most characters of a model's name.
pub const MAX_NAME_CHARS: usize = 64;
/// Largest LoRA rank.
pub const MAX_RANK: u32 = 256;
/// Most responses of one training group.
pub const MAX_RESPONSES: usize = 256;
/// Most prompts of one evaluation.
pub const MAX_EVALUATE_PROMPTS: usize = 64;
/// Most answers of each side to each prompt of an evaluation.
pub const MAX_EVALUATE_SAMPLES: u32 = 16;
/// Tokens of one answer of an evaluation at most where neither the request nor the model says: a usual answer, so that 64 prompts end.
pub const EVALUATE_MAX_TOKENS: u32 = 512;
/// Most alternatives of a token.
pub const MAX_TOP_LOGPROBS: u32 = 20;
/// Most optimizer steps of one train call.
pub const MAX_TRAIN_STEPS: u32 = 16;
/// Seconds that a `response_id` can be trained on.
pub const RESPONSE_ID_TTL_S: u64 = 24 * 60 * 60;
/// Prefix of every API key, so that a leaked one is recognised.
pub const KEY_PREFIX: &str = "tiger_";
/// Media type of a streamed answer: one JSON object a line.
pub const NDJSON: &str = "application/x-ndjson";
/// Media type that asks for the same chunks as server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Header of every answer that names the request in the logs.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Header that makes a train call safe to repeat. (A create call is by its name: the second is refused.)
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";
/// Header of an answer that was stored by an earlier call with the same key.
pub const IDEMPOTENT_REPLAYED_HEADER: &str = "idempotent-replayed";
/// Header that the web page sends on its own calls and that no cross-site form can.
pub const CSRF_HEADER: &str = "x-tiger-csrf";
/// Most characters of a chat's title.
pub const MAX_CHAT_TITLE_CHARS: usize = 200;
/// Most messages of a chat, all branches together.
pub const MAX_CHAT_NODES: usize = 4096;
/// Most characters of the id of a chat's message.
pub const MAX_CHAT_NODE_ID_CHARS: usize = 64;
