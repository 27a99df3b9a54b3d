"""The contract as types. Answers are frozen dataclasses (attributes, no dependency, `==`), which ignore fields that a newer server adds;
requests are typed dictionaries, so that a conversation is plain JSON. `tests/test_contract.py` holds both to the server's OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Optional, TypedDict, Union

Role = Literal["system", "user", "assistant"]
StopReason = Literal["end_turn", "max_tokens", "stop_sequence"]
ModelStatus = Literal["ready", "loading", "not_downloaded", "training"]
Objective = Literal["tapered", "importance_sampling", "ppo", "sft"]
AdapterFile = Literal["adapter_model.safetensors", "adapter_config.json"]

# Answers


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; may be put into `messages` as it is."""

    role: Role
    content: str


@dataclass(frozen=True)
class TopToken:
    """A token that might have been sampled."""

    token_id: int
    token: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """One sampled token."""

    token_id: int
    token: str
    logprob: float
    """Natural log of its probability at temperature 1."""
    top: Optional[list[TopToken]] = None
    """The most probable tokens in its place, with `top_logprobs`."""


@dataclass(frozen=True)
class Usage:
    """What a request took."""

    duration: float
    """Seconds."""
    input_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Sample:
    """One of several responses."""

    content: str
    stop_reason: StopReason
    response_id: str
    logprobs: Optional[list[TokenLogprob]] = None
    reasoning: Optional[str] = None


@dataclass(frozen=True)
class GenerateResponse:
    """Answer of `generate`, and of a stream's `final()`."""

    id: str
    model: str
    revision: int
    message: Message
    """The first response, ready to be appended to the conversation."""
    stop_reason: StopReason
    response_id: str
    """Names the exact tokens for `train`, for 24 hours."""
    usage: Usage
    logprobs: Optional[list[TokenLogprob]] = None
    reasoning: Optional[str] = None
    responses: Optional[list[Sample]] = None
    """With `n` > 1: all responses, the first included."""


@dataclass(frozen=True)
class ModelInfo:
    """A model; which fields a base model lacks are None."""

    name: str
    id: str
    description: str
    read_only: bool
    temperature: float
    top_p: float
    base_model: str
    status: ModelStatus
    parent_model: Optional[str] = None
    revision: Optional[int] = None
    last_modified: Optional[float] = None
    default_model: Optional[bool] = None
    top_k: Optional[int] = None
    max_tokens: Optional[int] = None
    context_length: Optional[int] = None
    rank: Optional[int] = None
    alpha: Optional[float] = None
    dropout: Optional[float] = None
    learning_rate: Optional[float] = None
    parameters: Optional[int] = None
    size_bytes: Optional[int] = None
    created: Optional[float] = None


@dataclass(frozen=True)
class DeleteModelResponse:
    """Answer of `models.delete`."""

    id: str
    message: str


@dataclass(frozen=True)
class RevisionInfo:
    """One revision of a model."""

    revision: int
    created: float
    available: bool
    """Whether a roll-back to it is possible."""
    train_id: Optional[str] = None
    rolled_back_to: Optional[int] = None
    metrics: Optional[dict[str, Any]] = None
    """The answer of the training that made it, as it was stored."""


Revisions = list[RevisionInfo]


@dataclass(frozen=True)
class RatioSummary:
    """Importance ratios of recorded tokens."""

    mean: float
    max: float


@dataclass(frozen=True)
class RewardSummary:
    """Rewards of a call."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class StepMetrics:
    """Numbers of one optimizer step."""

    loss: float
    policy_loss: float
    kl_loss: float
    kl_parent: float
    kl_sampler: float
    entropy: float
    frac_tapered: float
    frac_capped: float
    ratio: RatioSummary
    grad_norm: float
    step_scale: float


@dataclass(frozen=True)
class ResponseMetrics:
    """What happened to one response."""

    group: int
    advantage: float
    """Above 0 it was made more probable, below 0 less."""
    tokens: int
    mode: Literal["recorded", "text"]
    staleness: int
    logprob_before: float
    logprob_after: Optional[float] = None


@dataclass(frozen=True)
class TrainUsage:
    """What a training took."""

    duration: float
    input_tokens: int
    trained_tokens: int


@dataclass(frozen=True)
class TrainResponse(StepMetrics):
    """Answer of `train`: the first step's numbers and what became of each response."""

    id: str
    model: str
    revision: int
    """The model's revision now."""
    updated: bool
    """False: nothing changed, `reason` says why."""
    steps: int
    reward: RewardSummary
    responses: list[ResponseMetrics]
    learning_rate: float
    trained_tokens: int
    duration: float
    warnings: list[str]
    usage: TrainUsage
    reason: Optional[str] = None
    kl_moved: Optional[float] = None
    entropy_after: Optional[float] = None


@dataclass(frozen=True)
class EvaluatedAnswer:
    """One sampled answer, scored by both sides."""

    content: str
    stop_reason: StopReason
    response_id: str
    tokens: int
    logprob: float
    logprob_other: float
    reasoning: Optional[str] = None


@dataclass(frozen=True)
class EvaluatedAnswers:
    """The answers to one prompt, side by side."""

    model: list[EvaluatedAnswer]
    against: list[EvaluatedAnswer]


@dataclass(frozen=True)
class EvaluatedResponse:
    """A given response, scored."""

    content: str
    tokens: int
    logprob: float
    logprob_against: float


@dataclass(frozen=True)
class EvaluateResult:
    """What was found for one prompt."""

    answers: EvaluatedAnswers
    responses: list[EvaluatedResponse]


@dataclass(frozen=True)
class EvaluateUsage:
    """What an evaluation took."""

    duration: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    scored_tokens: int


@dataclass(frozen=True)
class EvaluateResponse:
    """Answer of `models.evaluate`."""

    id: str
    model: str
    revision: int
    against: Union[Literal["parent"], int]
    seed: int
    results: list[EvaluateResult]
    usage: EvaluateUsage
    mean_logprob: Optional[float] = None
    mean_logprob_against: Optional[float] = None
    mean_tokens: Optional[float] = None
    mean_tokens_against: Optional[float] = None
    kl: Optional[float] = None


# Chunks of streams, told apart by `type`


@dataclass(frozen=True)
class InfoChunk:
    """Something loads or waits in line."""

    message: str
    progress: Optional[float] = None
    stage: Optional[str] = None
    type: Literal["info"] = "info"


@dataclass(frozen=True)
class DeltaChunk:
    """A piece of text (`delta`) or of thinking (`reasoning`) of response `index`."""

    delta: Optional[str] = None
    reasoning: Optional[str] = None
    index: Optional[int] = None
    logprobs: Optional[list[TokenLogprob]] = None
    type: Literal["delta"] = "delta"


@dataclass(frozen=True)
class ProgressChunk:
    """A training or an evaluation goes on."""

    step: int
    steps: int
    metrics: Optional[StepMetrics] = None
    """None within a step and in an evaluation."""
    type: Literal["progress"] = "progress"


@dataclass(frozen=True)
class StreamedSample:
    """How one of several streamed responses ended."""

    index: int
    stop_reason: StopReason
    response_id: str


@dataclass(frozen=True)
class GenerateStop:
    """End of a generated text."""

    stop_reason: StopReason
    usage: Usage
    id: str
    model: str
    revision: int
    response_id: str
    responses: Optional[list[StreamedSample]] = None
    index: Optional[int] = None
    type: Literal["stop"] = "stop"


@dataclass(frozen=True)
class TrainStop(TrainResponse):
    """End of a training: its whole answer."""

    stop_reason: StopReason = "end_turn"
    type: Literal["stop"] = "stop"


@dataclass(frozen=True)
class EvaluateStop(EvaluateResponse):
    """End of an evaluation: its whole answer."""

    stop_reason: StopReason = "end_turn"
    type: Literal["stop"] = "stop"


@dataclass(frozen=True)
class CreateUsage:
    """What a create request took."""

    duration: float = 0.0


@dataclass(frozen=True)
class CreateStop(ModelInfo):
    """End of a create request: the model."""

    stop_reason: StopReason = "end_turn"
    usage: CreateUsage = field(default_factory=CreateUsage)
    type: Literal["stop"] = "stop"


GenerateChunk = Union[InfoChunk, DeltaChunk, GenerateStop]
TrainChunk = Union[InfoChunk, ProgressChunk, TrainStop]
EvaluateChunk = Union[InfoChunk, ProgressChunk, EvaluateStop]
CreateChunk = Union[InfoChunk, CreateStop]

# Requests; None is the same as leaving out


class MessageParam(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


Messages = Sequence[Union[MessageParam, Message]]


class _ResponseFormat(TypedDict):
    type: Literal["text", "json_object", "json_schema"]


class ResponseFormat(_ResponseFormat, total=False):
    """Constrains the text."""

    schema: Mapping[str, Any]


class _GenerateParams(TypedDict):
    model: str
    messages: Messages


class GenerateParams(_GenerateParams, total=False):
    """Fields of `generate`."""

    temperature: Optional[float]
    top_p: Optional[float]
    top_k: Optional[int]
    min_p: Optional[float]
    max_tokens: Optional[int]
    stop: Union[str, Sequence[str], None]
    seed: Optional[int]
    n: Optional[int]
    logprobs: Optional[bool]
    top_logprobs: Optional[int]
    response_format: Optional[ResponseFormat]


class _TrainedResponse(TypedDict):
    reward: float


class TrainedResponse(_TrainedResponse, total=False):
    """A response with its reward: exactly one of `content` and `response_id`."""

    content: str
    response_id: str


class TrainGroup(TypedDict):
    """A conversation and its responses."""

    messages: Messages
    responses: Sequence[TrainedResponse]


class _TrainParams(TypedDict):
    model: str


class TrainParams(_TrainParams, total=False):
    """Fields of `train`: `messages` and `responses`, or `batch`."""

    messages: Messages
    responses: Sequence[TrainedResponse]
    batch: Sequence[TrainGroup]
    learning_rate: Optional[float]
    steps: Optional[int]
    target_kl: Optional[float]
    kl_coefficient: Optional[float]
    kl_limit: Optional[float]
    baseline: Union[Literal["group_mean", "none"], float, None]
    advantage_scale: Optional[Literal["cap", "none", "group"]]
    length_norm: Optional[Literal["token", "sequence", "constant"]]
    clip_high: Optional[float]
    negative_floor: Optional[float]
    max_grad_norm: Optional[float]
    objective: Optional[Objective]
    dry_run: Optional[bool]
    evaluate: Optional[bool]
    seed: Optional[int]
    if_revision: Optional[int]


class _CreateModelParams(TypedDict):
    name: str
    description: str
    parent_model: str


class CreateModelParams(_CreateModelParams, total=False):
    """Fields of `models.create`."""

    rank: Optional[int]
    alpha: Optional[float]
    dropout: Optional[float]
    temperature: Optional[float]
    top_p: Optional[float]
    top_k: Optional[int]
    max_tokens: Optional[int]
    learning_rate: Optional[float]
    seed: Optional[int]


class _ImportAdapterParams(TypedDict):
    name: str
    parent_model: str


class ImportAdapterParams(_ImportAdapterParams, total=False):
    """Fields of `models.import_adapter`; `parent_model` is the base that the adapter was trained on."""

    description: Optional[str]


class UpdateModelParams(TypedDict, total=False):
    """Fields of `models.update`; None takes a default of one's own back, so that the parent's or base's holds again."""

    description: Optional[str]
    temperature: Optional[float]
    top_p: Optional[float]
    top_k: Optional[int]
    max_tokens: Optional[int]
    learning_rate: Optional[float]
    default_model: Optional[bool]


class _EvaluatePrompt(TypedDict):
    messages: Messages


class EvaluatePrompt(_EvaluatePrompt, total=False):
    """A conversation that both sides answer; `responses` are scored only."""

    responses: Sequence[str]


class _EvaluateParams(TypedDict):
    prompts: Sequence[EvaluatePrompt]


class EvaluateParams(_EvaluateParams, total=False):
    """Fields of `models.evaluate`."""

    revision: Optional[int]
    against: Union[Literal["parent"], int, None]
    samples: Optional[int]
    temperature: Optional[float]
    top_p: Optional[float]
    top_k: Optional[int]
    max_tokens: Optional[int]
    seed: Optional[int]
