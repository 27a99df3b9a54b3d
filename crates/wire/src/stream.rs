//! The chunks of a streamed answer: one JSON object a line, told apart by `type`; exactly one `stop` or `error`, and it is last.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, Ref};

use crate::error::ErrorBody;
use crate::evaluate::EvaluateResponse;
use crate::generate::{StopReason, TokenLogprob, Usage};
use crate::models::ModelInfo;
use crate::train::{StepMetrics, TrainResponse};

/// One line of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Chunk {
    /// Something loads, downloads or waits in line.
    Info(InfoChunk),
    /// A piece of text.
    Delta(DeltaChunk),
    /// A training or an evaluation goes on.
    Progress(ProgressChunk),
    /// The end, when all went well.
    Stop(Box<StopChunk>),
    /// The end, when it did not.
    Error(ErrorChunk),
}

impl Chunk {
    /// Nothing follows this chunk.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Stop(_) | Self::Error(_))
    }
}

/// Something loads, downloads or waits in line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InfoChunk {
    /// For people, e.g. `Loading model Llama-3.1-8b`.
    pub message: String,
    /// 0..1 where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// For programs: `loading`, `waiting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
}

/// A piece of text: of the answer (`delta`), or of the reasoning before it (`reasoning`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeltaChunk {
    /// Joined, these are exactly the content of the answer that is not streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<String>,
    /// Joined, these are exactly its reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Which of the `n` responses; absent means 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Tokens since the last chunk of this response, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprob>>,
}

/// A training or an evaluation goes on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProgressChunk {
    /// Step, from 1; of an evaluation, parts done.
    pub step: u32,
    /// Steps asked for; of an evaluation, parts in all.
    pub steps: u32,
    /// Numbers of the step; empty within one, and in an evaluation.
    #[schema(schema_with = metrics_schema)]
    pub metrics: StepMetricsOrEmpty,
}

/// `{}`, or the numbers: `derive` would call the unit variant null.
fn metrics_schema() -> utoipa::openapi::Schema {
    let empty = ObjectBuilder::new().max_properties(Some(0));
    OneOfBuilder::new().item(Ref::from_schema_name("StepMetrics")).item(empty).build().into()
}

/// `{}` within a step, the step's numbers at its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StepMetricsOrEmpty {
    /// The step's numbers.
    Done(Box<StepMetrics>),
    /// Not there yet.
    #[default]
    #[serde(with = "empty_object")]
    Empty,
}

mod empty_object {
    //! `{}` for a unit variant.
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Empty {}

    pub fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        Empty {}.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        Empty::deserialize(deserializer).map(|_| ())
    }
}

/// End of a stream that went well; which fields follow depends on the endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum StopChunk {
    /// Of a training.
    Train(TrainStop),
    /// Of an evaluation.
    Evaluate(EvaluateStop),
    /// Of a generate request.
    Generate(GenerateStop),
    /// Of a create request.
    Create(CreateStop),
}

/// One of several responses, as the last chunk sums it up (its text was streamed).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamedSample {
    /// Which of the `n` responses.
    pub index: u32,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Names the exact tokens for a train call, for 24 hours.
    pub response_id: String,
}

/// End of a generated text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GenerateStop {
    /// Why the (first) text ended.
    pub stop_reason: StopReason,
    /// What it took.
    pub usage: Usage,
    /// Names this request.
    pub id: String,
    /// Id of the model.
    pub model: String,
    /// Revision that answered.
    pub revision: u64,
    /// Names the exact tokens of the (first) response for a train call.
    pub response_id: String,
    /// With `n` > 1: how each response ended. `index` 0 is the one above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responses: Option<Vec<StreamedSample>>,
    /// With `n` > 1: 0, the response that the fields above belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
}

/// End of a training: the fields of the answer that is not streamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrainStop {
    /// Always `end_turn`.
    pub stop_reason: StopReason,
    /// The answer.
    #[serde(flatten)]
    pub answer: TrainResponse,
}

/// End of an evaluation: the fields of the answer that is not streamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluateStop {
    /// Always `end_turn`.
    pub stop_reason: StopReason,
    /// The answer.
    #[serde(flatten)]
    pub answer: EvaluateResponse,
}

/// What a create request took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreateUsage {
    /// Seconds.
    pub duration: f64,
}

/// End of a create request: the fields of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreateStop {
    /// Always `end_turn`.
    pub stop_reason: StopReason,
    /// What it took.
    pub usage: CreateUsage,
    /// The model.
    #[serde(flatten)]
    pub model: ModelInfo,
}

/// End of a stream that did not go well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorChunk {
    /// The same object as in an HTTP error.
    pub error: ErrorBody,
}
