"""The types against the server's own description and examples: nothing is missing, nothing is made up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import tigercity
from tigercity import _types
from tigercity._decode import decode

ROOT = Path(__file__).parents[3]
SCHEMAS: dict[str, Any] = json.loads((ROOT / "clients/openapi.json").read_text("utf-8"))["components"]["schemas"]

# Requests by our names, and what each method adds or takes by itself.
REQUESTS = {
    "GenerateParams": ("GenerateRequest", {"stream"}),
    "TrainParams": ("TrainRequest", {"stream"}),
    "CreateModelParams": ("CreateModelRequest", {"stream"}),
    "ImportAdapterParams": ("ImportForm", {"adapter_config", "adapter_model"}),
    "UpdateModelParams": ("PatchModelRequest", set()),
    "EvaluateParams": ("EvaluateRequest", {"stream"}),
    "EvaluatePrompt": ("EvaluatePrompt", set()),
    "TrainGroup": ("TrainGroup", set()),
    "TrainedResponse": ("TrainedResponse", set()),
    "ResponseFormat": ("ResponseFormat", set()),
    "MessageParam": ("Message", set()),
}
ANSWERS = [kind for kind in vars(_types).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
# Enumerations, unions and envelopes; their values are in the types' literals.
NOT_CLASSES = {
    "Against", "Baseline", "BaselineKind", "AdvantageScale", "LengthNorm", "Objective", "ParentName", "ResponseFormatType", "ResponseMode",
    "Role", "Stop", "StopChunk", "StopReason", "ModelStatus", "Chunk", "ErrorBody", "ErrorChunk", "ErrorCode", "ErrorEnvelope", "ErrorType",
    "RollbackRequest",
}  # fmt: skip


def fields(schema: dict[str, Any]) -> tuple[set[str], set[str]]:
    """All fields and the required ones."""
    names, required = set(schema.get("properties", {})), set(schema.get("required", []))
    for part in schema.get("allOf", []):
        part = SCHEMAS[part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part
        more, more_required = fields(part)
        names |= more
        required |= more_required
    return names, required


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: str(kind.__name__))
def test_answers(kind: type[Any]) -> None:
    names, required = fields(SCHEMAS[kind.__name__])
    own = {field.name: field for field in dataclasses.fields(kind)}
    # The tag is of the union of chunks.
    assert set(own) - {"type"} == names
    optional = {name for name, field in own.items() if field.default is None}
    # The document calls `step_scale` optional, but every answer has it; `metrics` is `{}` within a step, which is None here.
    excused = {"ProgressChunk": {"metrics"}}.get(kind.__name__, {"step_scale"})
    assert optional - excused == names - required - excused


@pytest.mark.parametrize("name", REQUESTS)
def test_requests(name: str) -> None:
    schema, taken = REQUESTS[name]
    names, required = fields(SCHEMAS[schema])
    kind = getattr(_types, name)
    assert set(kind.__annotations__) == names - taken
    assert set(kind.__required_keys__) == required - taken


def test_nothing_is_left_out() -> None:
    known = {kind.__name__ for kind in ANSWERS} | {schema for schema, _ in REQUESTS.values()} | NOT_CLASSES
    files = {name for name, schema in SCHEMAS.items() if schema.get("format") == "binary"}
    assert set(SCHEMAS) - files == known


@pytest.mark.parametrize("literal", ["Role", "StopReason", "ModelStatus", "Objective"])
def test_values(literal: str) -> None:
    values = {value for part in SCHEMAS[literal].get("oneOf", [SCHEMAS[literal]]) for value in part.get("enum", [])}
    assert values == set(getattr(_types, literal).__args__)


GOLDEN = {
    "generate_response": _types.GenerateResponse,
    "train_response": _types.TrainResponse,
    "train_response_zero_advantage": _types.TrainResponse,
    "evaluate_response": _types.EvaluateResponse,
    "model_info": _types.ModelInfo,
    "model_info_base": _types.ModelInfo,
    "revision_info": _types.RevisionInfo,
    "revision_info_rollback": _types.RevisionInfo,
    "delete_model_response": _types.DeleteModelResponse,
    "chunk_info": _types.InfoChunk,
    "chunk_delta": _types.DeltaChunk,
    "chunk_delta_top": _types.DeltaChunk,
    "chunk_reasoning": _types.DeltaChunk,
    "chunk_progress": _types.ProgressChunk,
    "chunk_stop_generate": _types.GenerateStop,
    "chunk_stop_train": _types.TrainStop,
    "chunk_stop_evaluate": _types.EvaluateStop,
    "chunk_stop_create": _types.CreateStop,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_examples_of_the_server(name: str) -> None:
    example = json.loads((ROOT / f"crates/wire/golden/{name}.json").read_text("utf-8"))
    decoded: object = decode(GOLDEN[name], example)
    assert tigercity.to_dict(decoded) == example


def test_an_answer_of_another_shape_is_refused() -> None:
    with pytest.raises(tigercity.UnexpectedAnswerError, match="without `id`"):
        decode(_types.DeleteModelResponse, {"message": "m"})
    with pytest.raises(tigercity.UnexpectedAnswerError, match="got list"):
        decode(_types.DeleteModelResponse, [])


def test_every_public_name_is_exported_and_the_version_is_one() -> None:
    public = {
        name for name, value in vars(_types).items() if isinstance(value, type) and value.__module__ == _types.__name__ and name[0] != "_"
    }
    assert public <= set(tigercity.__all__)
    assert all(hasattr(tigercity, name) for name in tigercity.__all__)
    assert f'\nversion = "{tigercity.__version__}"\n' in (ROOT / "clients/python/pyproject.toml").read_text("utf-8")
