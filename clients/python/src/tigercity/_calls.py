"""What each method sends and how its answer is read; shared by the sync and the async client. Sends nothing itself."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, Generic, Optional, TypeVar, cast
from urllib.parse import quote

from . import _types as t
from ._decode import body, decode
from ._errors import TigerCityError, UnexpectedAnswerError
from ._form import Form

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, which may take several tries."""

    method: str
    path: str
    read: Callable[[bytes], T]
    """What the answer's body holds."""
    body: Optional[dict[str, Any]] = None
    form: Optional[Form] = None
    """In place of `body`."""
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    repeatable: bool = True
    """Sending it twice does no more than sending it once. What is not is repeated only where the first one was not worked on."""


def one(kind: type[T]) -> Callable[[bytes], T]:
    """A body that is one `kind`."""
    return lambda content: decode(kind, _json(content))


def many(kind: type[T]) -> Callable[[bytes], list[T]]:
    """A body that is an array of `kind`."""

    def read(content: bytes) -> list[T]:
        value = _json(content)
        if not isinstance(value, list):
            raise UnexpectedAnswerError("expected an array; is the base URL right?")
        return [decode(kind, item) for item in value]

    return read


def _json(content: bytes) -> object:
    try:
        return cast(object, json.loads(content))
    except ValueError as error:
        raise UnexpectedAnswerError(f"the answer is not JSON ({error}); is the base URL right?") from error


def _model(model: str, rest: str = "") -> str:
    # An empty one would be another path.
    if not isinstance(model, str) or not model:
        raise TigerCityError(f"`model` must be the id or name of a model; it is {model!r}")
    return f"/v1/models/{quote(model, safe='')}{rest}"


def generate(params: Mapping[str, Any], stream: bool) -> Call[t.GenerateResponse]:
    return Call("POST", "/v1/generate_response", one(t.GenerateResponse), body(params, stream))


def train(params: Mapping[str, Any], idempotency_key: Optional[str], stream: bool) -> Call[t.TrainResponse]:
    # The key is made once a call, so that every try has the same one and the server trains once.
    headers = {"Idempotency-Key": uuid.uuid4().hex if idempotency_key is None else idempotency_key}
    return Call("POST", "/v1/train", one(t.TrainResponse), body(params, stream), headers=headers)


def list_models() -> Call[list[t.ModelInfo]]:
    return Call("GET", "/v1/models", many(t.ModelInfo))


def get_model(model: str) -> Call[t.ModelInfo]:
    return Call("GET", _model(model), one(t.ModelInfo))


def create_model(params: Mapping[str, Any], stream: bool) -> Call[t.ModelInfo]:
    return Call("POST", "/v1/models", one(t.ModelInfo), body(params, stream), repeatable=False)


def update_model(model: str, params: Mapping[str, Any]) -> Call[t.ModelInfo]:
    # Here None says something: it takes a default back.
    return Call("PATCH", _model(model), one(t.ModelInfo), dict(params))


def delete_model(model: str) -> Call[t.DeleteModelResponse]:
    return Call("DELETE", _model(model), one(t.DeleteModelResponse), repeatable=False)


def rollback(model: str, revision: int) -> Call[t.ModelInfo]:
    return Call("POST", _model(model, "/rollback"), one(t.ModelInfo), {"revision": revision}, repeatable=False)


def evaluate(model: str, params: Mapping[str, Any], stream: bool) -> Call[t.EvaluateResponse]:
    return Call("POST", _model(model, "/evaluate"), one(t.EvaluateResponse), body(params, stream))


def import_adapter(form: Form) -> Call[t.ModelInfo]:
    return Call("POST", "/v1/adapters", one(t.ModelInfo), form=form, headers=form.headers(), repeatable=False)


def adapter(model: str, file: str, revision: Optional[int]) -> Call[bytes]:
    query = {} if revision is None else {"revision": str(revision)}
    return Call("GET", _model(model, f"/adapter/{quote(file, safe='')}"), bytes, query=query)


class Pages:
    """Revisions, page by page: the server may give fewer than asked for, and revision 0 is the last of all."""

    def __init__(self, model: str, limit: Optional[int], before: Optional[int]) -> None:
        self.found: list[t.RevisionInfo] = []
        self._model = model
        self._limit = limit
        self._before = before

    def next(self) -> Optional[Call[list[t.RevisionInfo]]]:
        """The call of the next page, or None when all are there."""
        left = None if self._limit is None else self._limit - len(self.found)
        if left is not None and left <= 0 and self.found:
            return None
        query: dict[str, str] = {}
        if left is not None:
            query["limit"] = str(min(left, MAX_PAGE))
        if self._before is not None:
            query["before"] = str(self._before)
        return Call("GET", _model(self._model, "/revisions"), many(t.RevisionInfo), query=query)

    def add(self, page: list[t.RevisionInfo]) -> bool:
        """Takes a page; False when it was the last."""
        self.found += page
        if not page or page[-1].revision == 0:
            return False
        self._before = page[-1].revision
        return True


MAX_PAGE = 1000
"""Most revisions that the server gives at once."""
